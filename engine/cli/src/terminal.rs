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

#[cfg(test)]
mod tests {
    use super::*;

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
