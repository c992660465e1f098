//! What strangers wrote, as it may be shown on a terminal.

/// `text` with everything escaped that would steer a terminal or reorder what it shows: control characters but line feeds,
/// and the characters that change the direction of writing. The escapes are those of JSON, so that JSON stays the same JSON.
pub fn printable(text: &str) -> String {
    escape(text, |c| c != '\n')
}

/// As [`printable`], and on one line.
pub fn printable_line(text: &str) -> String {
    escape(text, |_| true)
}

fn escape(text: &str, unwanted: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && unwanted(c) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(printable("a\u{1b}[31m\u{9b}2J\u{7}b"), "a\\u001b[31m\\u009b2J\\u0007b");
        assert_eq!(printable("\u{202e}gnp.\u{2069}"), "\\u202egnp.\\u2069");
        assert_eq!(printable("zwei Zeilen:\nä ö ü, 数字, \"שלום\""), "zwei Zeilen:\nä ö ü, 数字, \"שלום\"");
        assert_eq!(printable_line("two\nlines\r"), "two\\u000alines\\u000d");
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
