//! What strangers wrote, as errors quote it: in one line, and not all of it where it is long.

/// Characters of a name that are quoted.
const NAME: usize = 80;
/// Characters that are quoted of what a parser says, which quotes the file itself.
const MESSAGE: usize = 400;
/// Names of a list that are quoted.
const NAMES: usize = 20;

/// A name.
pub(crate) fn name(text: &str) -> String {
    one_line(&shortened(text, NAME))
}

/// What a parser says of a file.
pub(crate) fn message(error: &impl ToString) -> String {
    one_line(&shortened(error.to_string().trim_end(), MESSAGE))
}

/// The first of `names`, and how many more there are.
pub(crate) fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES);
    let mut listed = names.take(NAMES).map(name).collect::<Vec<String>>().join(", ");
    if more > 0 {
        listed.push_str(&format!(" and {more} more"));
    }
    listed
}

/// `text` with line feeds and other control characters escaped.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
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
        assert_eq!(name("a\nerror: b\u{1b}[2J"), "a\\nerror: b\\u{1b}[2J");
        let many = ["a"; 22];
        assert!(names(many.into_iter()).ends_with("a, a and 2 more"));
    }
}
