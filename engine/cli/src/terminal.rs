//! What strangers wrote, as it may be shown on a terminal.

use cryptodl_network::text::one_line;

/// `text` with everything escaped that would steer a terminal or reorder what it shows; line feeds stay.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => shown.push_str(&(one_line(line) + "\n")),
            None => shown.push_str(&one_line(line)),
        }
    }
    shown
}

/// `1 image`, `12 images`.
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Columns that text is broken at, at most.
const WIDEST: u16 = 100;

/// `text` in lines that fit stderr, where that is a terminal. Files and other programs get long
/// lines as they are.
pub fn fitted(text: &str) -> String {
    match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((terminal_size::Width(columns), _)) if columns > 20 => wrapped(text, usize::from(columns.min(WIDEST)), ""),
        _ => text.into(),
    }
}

/// `text` in lines of at most `width` characters, broken at spaces; all lines but the first begin
/// with `indent`. A longer word has a line of its own.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    for line in text.split_inclusive('\n') {
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let len = word.trim_end().chars().count();
            if column > 0 && column + len > width {
                lines.truncate(lines.trim_end_matches(' ').len());
                lines.push('\n');
                lines.push_str(indent);
                column = indent.chars().count();
            }
            lines.push_str(word);
            column += word.chars().count();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrapped("one two three\nfour  five", 8, ""), "one two\nthree\nfour\nfive");
        assert_eq!(wrapped("one two three", 7, "  "), "one two\n  three");
        assert_eq!(wrapped("incomprehensibilities a b", 5, "> "), "incomprehensibilities\n> a b");
        assert_eq!(wrapped("short\n", 100, ""), "short\n");
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(printable("a\u{1b}[31m\u{9b}2J\u{7}b"), "a\\u001b[31m\\u009b2J\\u0007b");
        assert_eq!(printable("\u{202e}gnp.\u{2069}"), "\\u202egnp.\\u2069");
        assert_eq!(printable("zwei Zeilen:\nä ö ü, 数字, \"שלום\""), "zwei Zeilen:\nä ö ü, 数字, \"שלום\"");
        assert_eq!(printable("two\nlines\r"), "two\nlines\\u000d");
        assert_eq!(one_line("two\nlines\r"), "two\\u000alines\\u000d");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "title": "\u{202e}\u{9b}\u{1b}\n \\ \"" });
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        let shown = printable(&text);
        assert!(!shown.contains(['\u{202e}', '\u{9b}']));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
