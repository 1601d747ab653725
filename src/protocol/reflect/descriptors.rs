//! What a plugin serves, by gRPC reflection: v1, then v1alpha. Both have the same messages under
//! different names, so the types of v1 serve for both.

use super::said::said;
use crate::escape::printable;
use futures::StreamExt;
use futures::channel::mpsc;
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::FileDescriptorProto;
use std::collections::{BTreeMap, BTreeSet};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Maximum number of files that are fetched: what comes from a plugin has no end of its own.
const MAX_FILES: usize = 2_000;
/// Longest quote of a plugin's words, in bytes.
const MAX_SAID: usize = 512;
/// Longest answer in bytes: the descriptors of one service with all that it imports.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why the plugin's services are not known.
#[derive(Debug, thiserror::Error)]
pub enum ReflectionError {
    /// Neither version is there.
    #[error(
        "asking the plugin what it serves: it does not offer gRPC reflection\nGive its compiled descriptors instead: protoc --include_imports --descriptor_set_out=plugin.pb *.proto, then --descriptors plugin.pb"
    )]
    NotServed,
    /// The call ended with a status.
    #[error("asking the plugin what it serves: {}", printable(said(.0).as_bytes(), MAX_SAID))]
    Call(Box<Status>),
    /// No answer to a question.
    #[error("asking the plugin what it serves: it ended the answer early")]
    Ended,
    /// An answer that is an error.
    #[error("asking the plugin for {what}: {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The plugin's number.
        code: i32,
        /// The plugin's words.
        message: String,
    },
    /// An answer to another question.
    #[error("asking the plugin for {0}: the answer is of another kind")]
    Unexpected(String),
    /// Bytes that are no descriptor.
    #[error("reading the descriptors of {what}: {source}")]
    Decode {
        /// Of what.
        what: String,
        /// What does not fit.
        source: prost::DecodeError,
    },
    /// More than anybody needs.
    #[error("reading the descriptors: more than {MAX_FILES} files")]
    TooMany,
    /// Descriptors that contradict each other.
    #[error("putting the descriptors together: {0}")]
    Pool(prost_reflect::DescriptorError),
}

/// One open reflection stream; questions are asked one after the other.
#[derive(Debug)]
pub struct Reflection {
    questions: mpsc::UnboundedSender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    /// What the plugin serves, sorted.
    pub services: Vec<String>,
}

impl Reflection {
    /// Opens the stream with the newest version that the plugin serves, and asks for the services.
    pub async fn open(channel: &Channel) -> Result<Reflection, ReflectionError> {
        for path in VERSIONS {
            match Reflection::open_version(channel, path).await {
                Err(ReflectionError::Call(status)) if status.code() == Code::Unimplemented => {}
                other => return other,
            }
        }
        Err(ReflectionError::NotServed)
    }

    async fn open_version(
        channel: &Channel,
        path: &'static str,
    ) -> Result<Reflection, ReflectionError> {
        let (questions, asked) = mpsc::unbounded();
        let mut reflection = {
            // The first question travels with the opening: some servers answer nothing before it.
            let first = question(MessageRequest::ListServices(String::new()));
            let _ = questions.unbounded_send(first);
            let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
            grpc.ready()
                .await
                .map_err(|error| failed(Status::from_error(error.into())))?;
            let codec: ProstCodec<ServerReflectionRequest, ServerReflectionResponse> =
                ProstCodec::default();
            let answers = grpc
                .streaming(Request::new(asked), PathAndQuery::from_static(path), codec)
                .await
                .map_err(failed)?
                .into_inner();
            Reflection {
                questions,
                answers,
                services: Vec::new(),
            }
        };
        let what = "its services";
        let MessageResponse::ListServicesResponse(list) = reflection.answer(what).await? else {
            return Err(ReflectionError::Unexpected(what.to_owned()));
        };
        reflection.services = list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        reflection.services.sort();
        reflection.services.dedup();
        Ok(reflection)
    }

    /// The descriptors of `services` and of everything that they use. A service that the plugin
    /// names and does not describe is left out.
    pub async fn descriptors(
        &mut self,
        services: &[&str],
    ) -> Result<DescriptorPool, ReflectionError> {
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        for service in services {
            match self
                .files(
                    MessageRequest::FileContainingSymbol((*service).to_owned()),
                    service,
                )
                .await
            {
                Ok(found) => add(&mut files, found)?,
                Err(ReflectionError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Some servers send the file alone and some with all that it imports.
        while let Some(name) = missing(&files) {
            match self
                .files(MessageRequest::FileByFilename(name.clone()), &name)
                .await
            {
                Ok(found) if found.iter().any(|file| file.name() == name) => {
                    add(&mut files, found)?
                }
                Ok(_) => return Err(ReflectionError::Unexpected(name)),
                Err(ReflectionError::Refused {
                    what,
                    code,
                    message,
                }) => match well_known(&name) {
                    Some(file) => add(&mut files, vec![file])?,
                    None => {
                        return Err(ReflectionError::Refused {
                            what,
                            code,
                            message,
                        });
                    }
                },
                Err(error) => return Err(error),
            }
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files.into_values())
            .map_err(ReflectionError::Pool)?;
        Ok(pool)
    }

    async fn files(
        &mut self,
        request: MessageRequest,
        what: &str,
    ) -> Result<Vec<FileDescriptorProto>, ReflectionError> {
        self.questions
            .unbounded_send(question(request))
            .map_err(|_| ReflectionError::Ended)?;
        match self.answer(what).await? {
            MessageResponse::FileDescriptorResponse(files) => files
                .file_descriptor_proto
                .iter()
                .map(|bytes| {
                    FileDescriptorProto::decode(bytes.as_slice()).map_err(|source| {
                        ReflectionError::Decode {
                            what: what.to_owned(),
                            source,
                        }
                    })
                })
                .collect(),
            _ => Err(ReflectionError::Unexpected(what.to_owned())),
        }
    }

    async fn answer(&mut self, what: &str) -> Result<MessageResponse, ReflectionError> {
        let answer = self
            .answers
            .next()
            .await
            .ok_or(ReflectionError::Ended)?
            .map_err(failed)?;
        match answer.message_response {
            Some(MessageResponse::ErrorResponse(error)) => Err(ReflectionError::Refused {
                what: what.to_owned(),
                code: error.error_code,
                message: error.error_message,
            }),
            Some(answer) => Ok(answer),
            None => Err(ReflectionError::Unexpected(what.to_owned())),
        }
    }
}

fn question(request: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    }
}

fn failed(status: Status) -> ReflectionError {
    ReflectionError::Call(Box::new(status))
}

fn add(
    files: &mut BTreeMap<String, FileDescriptorProto>,
    found: Vec<FileDescriptorProto>,
) -> Result<(), ReflectionError> {
    for file in found {
        files.entry(file.name().to_owned()).or_insert(file);
    }
    if files.len() > MAX_FILES {
        Err(ReflectionError::TooMany)
    } else {
        Ok(())
    }
}

/// A file that one of `files` imports and that is not among them.
fn missing(files: &BTreeMap<String, FileDescriptorProto>) -> Option<String> {
    let imported: BTreeSet<&String> = files.values().flat_map(|file| &file.dependency).collect();
    imported
        .into_iter()
        .find(|name| !files.contains_key(*name))
        .cloned()
}

/// Google's own files, which some servers import and do not hand out.
fn well_known(name: &str) -> Option<FileDescriptorProto> {
    DescriptorPool::global()
        .get_file_by_name(name)
        .map(|file| file.file_descriptor_proto().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_import_is_found_and_googles_own_are_at_hand() {
        let file = FileDescriptorProto {
            name: Some("a.proto".to_owned()),
            dependency: vec!["google/protobuf/timestamp.proto".to_owned()],
            ..FileDescriptorProto::default()
        };
        let mut files = BTreeMap::from([("a.proto".to_owned(), file)]);
        let name = missing(&files);
        assert_eq!(name.as_deref(), Some("google/protobuf/timestamp.proto"));
        let found = well_known("google/protobuf/timestamp.proto");
        assert!(add(&mut files, found.into_iter().collect()).is_ok());
        assert_eq!(missing(&files), None);
    }
}
