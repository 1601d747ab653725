//! The list of methods with the fields of their messages.

use patchbay_protocol::reflect::{is_machinery, shape};
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::method::none_or;

pub(crate) fn list(pool: &DescriptorPool, services: &[String]) -> String {
    let (machinery, own): (Vec<&str>, Vec<&str>) = services
        .iter()
        .map(String::as_str)
        .partition(|name| is_machinery(name));
    let mut text = String::new();
    for name in &own {
        text.push_str(name);
        text.push('\n');
        match pool.get_service_by_name(name) {
            Some(service) => service
                .methods()
                .for_each(|method| text.push_str(&describe(&method))),
            None => text.push_str("  (the plugin has no descriptor for it)\n"),
        }
    }
    if own.is_empty() {
        text.push_str(&format!("The plugin serves {}.\n", none_or(&own)));
    }
    if !machinery.is_empty() {
        text.push_str(&format!(
            "and the standard services: {}\n",
            machinery.join(", ")
        ));
    }
    text
}

fn describe(method: &MethodDescriptor) -> String {
    let arrow = |streams: bool| if streams { "stream " } else { "" };
    format!(
        "  {} ({}{}) -> {}{}\n      request  {}\n      response {}\n",
        method.name(),
        arrow(method.is_client_streaming()),
        method.input().name(),
        arrow(method.is_server_streaming()),
        method.output().name(),
        shape(&method.input()),
        shape(&method.output()),
    )
}
