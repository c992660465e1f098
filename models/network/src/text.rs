//! What strangers wrote, as it may be shown: in one line, escaped, and not all of it where it is long.

/// Characters of a name that are quoted.
const NAME: usize = 80;
/// Characters that are quoted of what a parser says, which quotes the file itself.
const MESSAGE: usize = 400;
/// Names of a list that are quoted.
const NAMES: usize = 20;

/// A name.
pub fn name(text: &str) -> String {
    one_line(&shortened(text, NAME))
}

/// What a parser says of a file.
pub fn message(error: &impl ToString) -> String {
    one_line(&shortened(error.to_string().trim_end(), MESSAGE))
}

/// The first of `names`, and how many more there are.
pub fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES);
    let mut listed = names.take(NAMES).map(name).collect::<Vec<String>>().join(", ");
    if more > 0 {
        listed.push_str(&format!(" and {more} more"));
    }
    listed
}

/// `text` with everything escaped that would end a line, steer a terminal, or reorder what it shows: control characters, and the
/// characters that change the direction of writing. The escapes are those of JSON, so that JSON stays the same JSON.
pub fn one_line(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Control characters, line and paragraph separators, and marks, embeddings, overrides and isolates of direction.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, of which about `most` characters are left: those in the middle are replaced by their number.
pub fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.into();
    }
    let (head, tail) = (most - most / 2, most / 2);
    let at = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    format!("{} [... {} characters ...] {}", &text[..at(head)], count - head - tail, &text[at(count - tail)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(shortened("größer", 6), "größer");
        assert_eq!(shortened("größer", 5), "grö [... 1 characters ...] er");
        assert_eq!(shortened("größer", 0), " [... 6 characters ...] ");
        assert!(message(&"x".repeat(1 << 20)).len() < 500);
    }

    #[test]
    fn quoted_texts_have_one_line() {
        assert_eq!(name("a\nerror: b\u{1b}[2J"), "a\\u000aerror: b\\u001b[2J");
        let many = ["a"; 22];
        assert!(names(many.into_iter()).ends_with("a, a and 2 more"));
    }
}
