//! "Did you mean": names that are similar to a mistyped one.

/// At most three of `names` that `wanted` may stand for, most similar first.
pub fn similar<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::levenshtein(&wanted, &lower);
            let close = distance <= 1 + wanted.chars().count() / 4;
            let part =
                wanted.chars().count() >= 2 && (lower.contains(&wanted) || wanted.contains(&lower));
            (close || part).then_some((distance, name))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// "; did you mean a or b?", or nothing without a name to suggest.
pub fn did_you_mean(names: &[&str]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_finds_a_mistyped_name_and_nothing_else() {
        let names = ["kv-go", "kv-python", "scraper"];
        assert_eq!(similar("kv-og", names), ["kv-go"]);
        assert_eq!(similar("KV-GO", names), ["kv-go"]);
        assert_eq!(similar("kv", names), ["kv-go", "kv-python"]);
        assert!(similar("database", names).is_empty());
    }

    #[test]
    fn did_you_mean_is_empty_when_no_name_is_similar() {
        assert_eq!(did_you_mean(&[]), "");
        assert_eq!(did_you_mean(&["a", "b"]), "; did you mean a or b?");
    }
}
