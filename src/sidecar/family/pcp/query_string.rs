//! The part of an address behind the question mark.

use percent_encoding::percent_decode_str;

/// The value of `name`, decoded; `None` when it is absent or not text.
pub(crate) fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&');
    let found = pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    // The library passes on what is no escape; a plugin's library never writes such a thing.
    if !found.split('%').skip(1).all(is_escape) {
        return None;
    }
    let text = found.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().ok()?;
    Some(decoded.into_owned())
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
        fn any_query_is_decoded_without_a_panic(query in ".{0,60}") {
            let _ = value(&query, "a");
        }
    }
}
