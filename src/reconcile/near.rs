//! Names near to a mistyped one.

/// At most three of `names` that `wanted` may have meant, nearest first.
pub fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let far = distance(&wanted, &lower);
            let close = far <= 1 + wanted.chars().count() / 4;
            let part =
                wanted.chars().count() >= 2 && (lower.contains(&wanted) || wanted.contains(&lower));
            (close || part).then_some((far, name))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// "; did you mean a or b?", or nothing.
pub fn question(found: &[&str]) -> String {
    if found.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", found.join(" or "))
    }
}

/// How many letters have to be put in, taken out or changed.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let changed = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_something_else_is_not() {
        let names = ["kv-go", "kv-python", "scraper"];
        assert_eq!(near("kv-og", names), ["kv-go"]);
        assert_eq!(near("KV-GO", names), ["kv-go"]);
        assert_eq!(near("kv", names), ["kv-go", "kv-python"]);
        assert!(near("database", names).is_empty());
    }

    #[test]
    fn the_question_is_asked_only_with_an_answer() {
        assert_eq!(question(&[]), "");
        assert_eq!(question(&["a", "b"]), "; did you mean a or b?");
    }

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
