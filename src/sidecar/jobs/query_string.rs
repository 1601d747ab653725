//! The part of an address behind the question mark.

/// The value of `name`, decoded; `None` when it is absent or not text.
pub(super) fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&');
    let found = pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    let mut bytes = Vec::with_capacity(found.len());
    let mut rest = found.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_and_decoded() {
        let query = "job=a%2Db&row=0f&final=true&text=a+b%20%C3%A9&empty=&bare";
        for (name, expected) in [
            ("job", Some("a-b")),
            ("row", Some("0f")),
            ("text", Some("a b é")),
            ("empty", Some("")),
            ("bare", Some("")),
            ("none", None),
        ] {
            assert_eq!(value(query, name).as_deref(), expected, "{name}");
        }
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(value(broken, "a"), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_query_is_too_strange(query in ".{0,60}") {
            let _ = value(&query, "a");
        }
    }
}
