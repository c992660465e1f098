//! Who may use the service.

use std::collections::HashMap;

use zeroize::Zeroizing;

/// What begins every token, so that one that is found in a file or a log is known for what it is.
const PREFIX: &str = "cryptodl-";
/// Characters of a name.
const MAX_NAME: usize = 64;
/// The name of the only tenant of a service without tokens.
pub const LOCAL: &str = "local";

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Have images classified.
    Tenant,
    /// Compute what tenants have sent. A worker sees public keys and ciphertexts of all tenants, and decides what their results are.
    Worker,
}

impl Role {
    /// The word of a worker's line.
    const WORKER: &str = "worker";
}

/// Tokens, each known by its hash only: whoever reads the file cannot use one.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    holders: HashMap<blake3::Hash, (String, Role)>,
}

/// Why a file of tokens is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A line has something else.
    #[error(
        "line {0}: a line is a name, a space, and the 64 hexadecimal digits that `cryptodl serve --new-token` wrote, and behind \
         them the word `worker` where the token is a worker's"
    )]
    Line(usize),
    /// A name has characters that are not allowed.
    #[error(
        "{0:?} is no name for a tenant or a worker: it must have 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, '.', '_' and '-'"
    )]
    Name(String),
    /// A token has two names.
    #[error("line {0}: the same token stands above for somebody else")]
    Twice(usize),
    /// Nobody could use the service.
    #[error("there is no tenant's token in it: make one with `cryptodl serve --new-token NAME --tokens FILE`")]
    Empty,
    /// The system has no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Random(String),
}

impl Tokens {
    /// Reads the lines of a file. Empty lines, and lines that begin with `#`, say nothing. A tenant may have several tokens.
    ///
    /// # Errors
    /// The first line that is wrong; no token at all.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut holders = HashMap::new();
        for (i, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = i + 1;
            let mut words = line.split_whitespace();
            let (Some(name), Some(hash)) = (words.next(), words.next()) else { return Err(TokenError::Line(number)) };
            let role = match (words.next(), words.next()) {
                (None, None) => Role::Tenant,
                (Some(Role::WORKER), None) => Role::Worker,
                _ => return Err(TokenError::Line(number)),
            };
            check_name(name)?;
            let hash = blake3::Hash::from_hex(hash).map_err(|_| TokenError::Line(number))?;
            let holder = (name.to_owned(), role);
            if holders.insert(hash, holder.clone()).is_some_and(|other| other != holder) {
                return Err(TokenError::Twice(number));
            }
        }
        let tokens = Tokens { holders };
        if tokens.tenants().next().is_none() { Err(TokenError::Empty) } else { Ok(tokens) }
    }

    /// Whose token this is. The hash is looked up, so that the time tells nothing of a token that is not known.
    pub fn holder(&self, token: &str) -> Option<(&str, Role)> {
        self.holders.get(&hash(token)).map(|(name, role)| (name.as_str(), *role))
    }

    /// The names of all tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.holders.values().filter(|(_, role)| *role == Role::Tenant).map(|(name, _)| name.as_str())
    }
}

/// A fresh token of 256 random bits for `name`, and the line that lets it in.
///
/// # Errors
/// A name that is not allowed; no randomness.
pub fn fresh_token(name: &str, role: Role) -> Result<(Zeroizing<String>, String), TokenError> {
    check_name(name)?;
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| TokenError::Random(error.to_string()))?;
    let digits: Zeroizing<String> = Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    let token = Zeroizing::new(format!("{PREFIX}{}", *digits));
    let word = if role == Role::Worker { format!(" {}", Role::WORKER) } else { String::new() };
    let line = format!("{name} {}{word}\n", hash(&token));
    Ok((token, line))
}

fn hash(token: &str) -> blake3::Hash {
    blake3::Hash::from_bytes(blake3::derive_key("cryptodl service token v1", token.as_bytes()))
}

fn check_name(name: &str) -> Result<(), TokenError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed);
    if fits { Ok(()) } else { Err(TokenError::Name(name.chars().take(MAX_NAME).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_by_their_hash() {
        let (alice, first) = fresh_token("alice", Role::Tenant).unwrap();
        let (bob, second) = fresh_token("bob", Role::Tenant).unwrap();
        assert_eq!(alice.len(), PREFIX.len() + 64);
        let file = format!("# who may come in\n\n{first}{second}");
        assert!(!file.contains(&alice[PREFIX.len()..]));
        let tokens = Tokens::parse(&file).unwrap();
        assert_eq!(tokens.holder(&alice), Some(("alice", Role::Tenant)));
        assert_eq!(tokens.holder(&bob), Some(("bob", Role::Tenant)));
        for stranger in
            ["", "cryptodl-", &alice[..alice.len() - 1], &alice.to_uppercase(), first.split(' ').nth(1).unwrap()]
        {
            assert_eq!(tokens.holder(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn files_of_tokens_are_checked() {
        let (_, line) = fresh_token("alice", Role::Tenant).unwrap();
        let hash = line.split(' ').nth(1).unwrap().trim();
        for (text, error) in [
            (String::new(), TokenError::Empty),
            ("# nobody\n".into(), TokenError::Empty),
            ("alice".into(), TokenError::Line(1)),
            (format!("\nalice {}", &hash[..60]), TokenError::Line(2)),
            (format!("../alice {hash}"), TokenError::Name("../alice".into())),
            (format!("alice {hash}\nbob {hash}"), TokenError::Twice(2)),
            (format!("alice {hash}\nalice {hash} worker"), TokenError::Twice(2)),
            (format!("alice {hash} operator"), TokenError::Line(1)),
            (format!("alice {hash} worker too"), TokenError::Line(1)),
            (format!("gpu {hash} worker"), TokenError::Empty),
        ] {
            assert_eq!(Tokens::parse(&text).unwrap_err(), error, "{text}");
        }
        for name in ["a b", "", &"a".repeat(65)] {
            assert!(fresh_token(name, Role::Tenant).is_err(), "{name}");
        }
    }

    #[test]
    fn a_token_has_one_role() {
        let (alice, first) = fresh_token("alice", Role::Tenant).unwrap();
        let (gpu, second) = fresh_token("gpu-1", Role::Worker).unwrap();
        let tokens = Tokens::parse(&format!("{first}{second}")).unwrap();
        assert_eq!(tokens.holder(&alice), Some(("alice", Role::Tenant)));
        assert_eq!(tokens.holder(&gpu), Some(("gpu-1", Role::Worker)));
        assert_eq!(tokens.tenants().collect::<Vec<_>>(), ["alice"]);
    }
}
