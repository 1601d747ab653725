use super::*;
use crate::jobs::claims::event::{RequestId, RowId};

use crate::jobs::claims::entry::{Digest, Row, RowEnd};

fn place() -> (tempfile::TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path().into());
    (folder, root)
}

fn open(root: &Root) -> OpenedSession {
    Ledger::open(root, &Spool::open(root).unwrap()).unwrap()
}

fn claim(number: u128) -> Entry {
    Entry {
        state: State::Delivered {
            start_id: u64::MAX,
            gone: None,
        },
        kind: Kind::Command {
            request: RequestId(7),
        },
        spec: Some("{\"command\":{\"name\":\"wget\"}}".into()),
        deadline_ms: Some(u64::MAX),
        ..Named {
            claim: ClaimId(number),
            job_uid: format!("uid-{number}"),
            job: "my-job".to_owned(),
        }
        .lost()
    }
}

#[test]
fn claims_come_back_as_they_were_written() {
    let (_folder, root) = place();
    let OpenedSession {
        mut ledger,
        entries,
        troubles,
    } = open(&root);
    assert!(entries.is_empty() && troubles.is_empty());
    let epoch = ledger.epoch();
    let (mut one, two) = (claim(1), claim(2));
    ledger.write(&one).unwrap();
    ledger.write(&two).unwrap();
    one.state = State::Answered { succeeded: true };
    one.known_rows
        .push_back(crate::jobs::claims::entry::KnownRow {
            id: RowId(9),
            number: 1,
            late: false,
        });
    ledger.write(&one).unwrap();
    let opened = open(&root);
    assert_eq!(opened.entries, [one, two]);
    assert_eq!(opened.ledger.epoch(), epoch);
    assert_eq!(opened.troubles, Vec::<String>::new());
    let mut ledger = opened.ledger;
    ledger.remove(ClaimId(1)).unwrap();
    ledger.remove(ClaimId(1)).unwrap();
    assert_eq!(open(&root).entries.len(), 1);
}

#[test]
fn damaged_ledger_file_counts_as_delivered() {
    let (_folder, root) = place();
    let mut ledger = open(&root).ledger;
    let entry = claim(1);
    ledger.write(&entry).unwrap();
    ledger.write(&claim(2)).unwrap();
    let folder = root.jobs().join("claims");
    let path = folder.join(format!("{}_uid-1_my-job.json", ClaimId(1)));
    let whole = std::fs::read(&path).unwrap();
    // Wherever it is torn.
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let opened = open(&root);
        assert_eq!(opened.entries.len(), 2);
        let torn = &opened.entries[0];
        assert!(matches!(torn.state, State::Lost { .. }) && torn.is_delivered());
        assert_eq!((&*torn.job_uid, &*torn.job), ("uid-1", "my-job"));
        assert_eq!(opened.troubles.len(), 1);
    }
    std::fs::write(&path, &whole).unwrap();
    std::fs::rename(
        &path,
        folder.join(format!("{}_uid-1_my-job.json", ClaimId(3))),
    )
    .unwrap();
    let opened = open(&root);
    assert!(
        opened
            .entries
            .iter()
            .any(|entry| entry.claim == ClaimId(3) && matches!(entry.state, State::Lost { .. }))
    );
    std::fs::write(folder.join("strange\u{1b}"), b"x").unwrap();
    std::fs::write(folder.join(format!("{}_uid_My Job.json", ClaimId(4))), b"x").unwrap();
    assert!(
        open(&root)
            .troubles
            .iter()
            .any(|said| said.contains("\\x1b: not a claim"))
    );
}

#[test]
fn leftover_files_of_a_dead_process_are_removed() {
    let (_folder, root) = place();
    let mut ledger = open(&root).ledger;
    ledger.write(&claim(1)).unwrap();
    let folder = root.jobs().join("claims");
    std::fs::write(folder.join(".half.json.1"), b"{").unwrap();
    std::fs::write(
        root.jobs().join("rows/00000000000000aa"),
        b"no claim has it",
    )
    .unwrap();
    let opened = open(&root);
    assert_eq!((opened.entries.len(), opened.troubles.len()), (1, 0));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(
        std::fs::read_dir(root.jobs().join("rows")).unwrap().count(),
        0
    );
}

#[test]
fn a_claim_whose_row_is_not_whole_is_lost() {
    let (_folder, root) = place();
    let mut ledger = open(&root).ledger;
    let mut entry = claim(1);
    entry.pending.push(Row {
        number: 1,
        spool: Some(0xaa),
        bytes: 4,
        text: true,
        end: RowEnd::More,
        at_ms: 1,
        whole: None,
    });
    entry.digest = Digest::default();
    ledger.write(&entry).unwrap();
    let row = root.jobs().join("rows/00000000000000aa");
    std::fs::write(&row, b"four").unwrap();
    assert_eq!(open(&root).entries, [entry]);
    std::fs::write(&row, b"fou").unwrap();
    assert!(matches!(open(&root).entries[0].state, State::Lost { .. }));
}

#[test]
fn a_ledger_without_its_name_is_a_new_one() {
    let (_folder, root) = place();
    let mut ledger = open(&root).ledger;
    let epoch = ledger.epoch();
    ledger.write(&claim(1)).unwrap();
    for broken in [&b""[..], b"zz", b"\xff\xfe"] {
        ledger.write(&claim(1)).unwrap();
        std::fs::write(root.jobs().join("epoch"), broken).unwrap();
        let opened = open(&root);
        assert_ne!(opened.ledger.epoch(), epoch);
        assert_eq!((opened.entries.len(), opened.troubles.len()), (0, 1));
    }
    assert_eq!(epoch.len(), 32);
}
