//! The join code: what one device shows and another takes to come to the same relay, as text that survives being read aloud.
//!
//! `ferry-` and groups of five characters of Crockford's base 32 (no I, L, O, U; case and separators do not matter). The bytes are, in order:
//! version (1), flags (bit 0: a pin follows, bit 1: TLS, bit 2: the secret is hexadecimal), number of addresses, each address (kind 4: IPv4;
//! kind 6: IPv6; kind 1: length and name; then the port, big endian), the pin (32 bytes), length and bytes of the secret, and the first 5 bytes
//! of the SHA-256 of all that.

use super::url::{Pin, RelayUrl, UrlError};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

const VERSION: u8 = 1;
const PREFIX: &str = "ferry-";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;
const CHECKSUM_BYTES: usize = 5;
/// Most addresses in one code.
pub const ADDRESSES_MAX: usize = 8;
/// Longest secret, in bytes.
pub const SECRET_MAX_BYTES: usize = 128;
/// Longest code as text, in characters: anything longer is not read.
const TEXT_MAX: usize = 4096;

const HAS_PIN: u8 = 1;
const TLS: u8 = 2;
const HEX_SECRET: u8 = 4;

/// Why a text is not a join code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinCodeError {
    /// A character that no code has.
    #[error("the join code has a character that no code has: '{0}'; copy it again, whole")]
    Character(char),
    /// Mistyped, or a part is missing.
    #[error("the join code is mistyped or not whole; copy it again, from 'ferry-' to its last group")]
    Checksum,
    /// From a newer version.
    #[error("the join code has version {0}, this ferry knows version {VERSION}: upgrade ferry on this device")]
    Version(u8),
    /// The checksum is right and the content is not.
    #[error("the join code is not usable: {0}; ask for a new one")]
    Content(&'static str),
}

/// A join code. Whoever has it can use it once: treat it as a password.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// Where the relay may be, best first: `host:port`, IPv6 in brackets.
    pub addresses: Vec<String>,
    /// The certificate that must answer.
    pub pin: Option<Pin>,
    /// Whether to speak TLS; a pin says so too.
    pub tls: bool,
    /// The one-time secret.
    pub secret: String,
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinCode").field("addresses", &self.addresses).field("pin", &self.pin).field("secret", &"...").finish()
    }
}

impl JoinCode {
    /// The relay's addresses to try, in order. Those that policy forbids are left out; an error if none is left.
    pub fn urls(&self) -> Result<Vec<RelayUrl>, UrlError> {
        let scheme = if self.tls || self.pin.is_some() { "https" } else { "http" };
        let (mut urls, mut refused) = (Vec::new(), None);
        for address in &self.addresses {
            let url = match self.pin {
                Some(pin) => RelayUrl::pinned(address, pin),
                None => format!("{scheme}://{address}").parse(),
            };
            match url {
                Ok(url) => urls.push(url),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if urls.is_empty() => Err(error),
            _ => Ok(urls),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, JoinCodeError> {
        if self.addresses.is_empty() || self.addresses.len() > ADDRESSES_MAX {
            return Err(JoinCodeError::Content("it needs one to eight addresses"));
        }
        if self.secret.is_empty() || self.secret.len() > SECRET_MAX_BYTES {
            return Err(JoinCodeError::Content("its secret is empty or too long"));
        }
        let hex_secret = hex::decode(&self.secret).ok().filter(|bytes| hex::encode(bytes) == self.secret);
        let mut flags = if self.tls { TLS } else { 0 };
        flags |= if self.pin.is_some() { HAS_PIN } else { 0 };
        flags |= if hex_secret.is_some() { HEX_SECRET } else { 0 };
        let mut bytes = vec![VERSION, flags, self.addresses.len() as u8];
        for address in &self.addresses {
            push_address(&mut bytes, address)?;
        }
        bytes.extend(self.pin.iter().flat_map(|pin| pin.0));
        let secret = hex_secret.unwrap_or_else(|| self.secret.clone().into_bytes());
        bytes.push(secret.len() as u8);
        bytes.extend(secret);
        bytes.extend(checksum(&bytes));
        Ok(bytes)
    }

    /// The code as text. An error if the parts cannot be a code.
    pub fn to_text(&self) -> Result<String, JoinCodeError> {
        let letters = base32(&self.bytes()?);
        let groups: Vec<&str> = letters.as_bytes().chunks(GROUP).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        Ok(format!("{PREFIX}{}", groups.join("-")))
    }
}

fn push_address(bytes: &mut Vec<u8>, address: &str) -> Result<(), JoinCodeError> {
    let port = match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(v4)) => {
            bytes.push(4);
            bytes.extend(v4.ip().octets());
            v4.port()
        }
        Ok(SocketAddr::V6(v6)) => {
            bytes.push(6);
            bytes.extend(v6.ip().octets());
            v6.port()
        }
        Err(_) => {
            let (host, port) = address.rsplit_once(':').ok_or(JoinCodeError::Content("an address has no port"))?;
            if host.is_empty() || host.len() > 253 || !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) {
                return Err(JoinCodeError::Content("an address has no valid host name"));
            }
            bytes.extend([1, host.len() as u8]);
            bytes.extend(host.bytes());
            port.parse().map_err(|_| JoinCodeError::Content("an address has no port"))?
        }
    };
    bytes.extend(port.to_be_bytes());
    Ok(())
}

impl FromStr for JoinCode {
    type Err = JoinCodeError;

    fn from_str(text: &str) -> Result<Self, JoinCodeError> {
        let text = text.trim();
        let text = match text.get(..PREFIX.len()) {
            Some(start) if start.eq_ignore_ascii_case(PREFIX) => &text[PREFIX.len()..],
            _ => text,
        };
        if text.len() > TEXT_MAX {
            return Err(JoinCodeError::Checksum);
        }
        let bytes = unbase32(text)?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(JoinCodeError::Checksum)?;
        let (content, sum) = bytes.split_at(split);
        if sum != checksum(content) {
            return Err(JoinCodeError::Checksum);
        }
        parse(&mut Reader(content))
    }
}

fn parse(reader: &mut Reader<'_>) -> Result<JoinCode, JoinCodeError> {
    match reader.byte()? {
        VERSION => {}
        newer => return Err(JoinCodeError::Version(newer)),
    }
    let flags = reader.byte()?;
    let count = usize::from(reader.byte()?);
    if flags > (HAS_PIN | TLS | HEX_SECRET) || count == 0 || count > ADDRESSES_MAX {
        return Err(JoinCodeError::Content("it says what this version does not know"));
    }
    let addresses = (0..count).map(|_| address(reader)).collect::<Result<_, _>>()?;
    let pin = if flags & HAS_PIN != 0 { Some(Pin(reader.array()?)) } else { None };
    let length = usize::from(reader.byte()?);
    let secret = reader.take(length)?;
    let secret = if flags & HEX_SECRET != 0 { hex::encode(secret) } else { text(secret)? };
    if secret.is_empty() || secret.len() > SECRET_MAX_BYTES || !reader.0.is_empty() {
        return Err(JoinCodeError::Content("its length is wrong"));
    }
    Ok(JoinCode { addresses, pin, tls: flags & TLS != 0, secret })
}

fn address(reader: &mut Reader<'_>) -> Result<String, JoinCodeError> {
    let host = match reader.byte()? {
        4 => Ipv4Addr::from(reader.array::<4>()?).to_string(),
        6 => format!("[{}]", Ipv6Addr::from(reader.array::<16>()?)),
        1 => {
            let length = usize::from(reader.byte()?);
            text(reader.take(length)?)?
        }
        _ => return Err(JoinCodeError::Content("it has an address of an unknown kind")),
    };
    Ok(format!("{host}:{}", u16::from_be_bytes(reader.array()?)))
}

fn text(bytes: &[u8]) -> Result<String, JoinCodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| JoinCodeError::Content("a part of it is not text"))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], JoinCodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(JoinCodeError::Content("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, JoinCodeError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JoinCodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(b"ferry join code\0").chain_update(bytes).finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    sum
}

fn base32(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    }
    text
}

fn unbase32(text: &str) -> Result<Vec<u8>, JoinCodeError> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for letter in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let plain = match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = ALPHABET.iter().position(|known| char::from(*known) == plain).ok_or(JoinCodeError::Character(letter))?;
        held = held << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // What is left is padding: a rest that is not zero, or a whole spare letter, was not written by us.
    if held != 0 || bits >= 5 { Err(JoinCodeError::Checksum) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> JoinCode {
        let addresses = vec!["192.168.1.7:8443".into(), "[fd00::7]:8443".into(), "relay.example:443".into()];
        JoinCode { addresses, pin: Some(Pin([0x5a; 32])), tls: true, secret: "00112233445566778899aabbccddeeff".into() }
    }

    #[test]
    fn golden_text() {
        let code = JoinCode { addresses: vec!["192.0.2.7:8443".into()], pin: None, tls: true, secret: "c0ffee".into() };
        assert_eq!(hex::encode(&code.bytes().unwrap()[..14]), "01060104c000020720fb03c0ffee");
        let text = code.to_text().unwrap();
        assert_eq!(text, "ferry-04302-16000-10E87-V0F0F-ZVMB8-3WRKX-8");
        assert_eq!(text.parse::<JoinCode>().unwrap(), code);
    }

    #[test]
    fn it_comes_back_however_it_is_typed() {
        for code in [sample(), JoinCode { pin: None, tls: false, secret: "Some text, not hex".into(), ..sample() }] {
            let text = code.to_text().unwrap();
            for typed in
                [text.clone(), text.to_lowercase(), text.replace('-', " "), text.replace('0', "o").replace('1', "l"), format!("  {text}\n")]
            {
                let typed = typed.replacen("ferry ", "ferry-", 1);
                assert_eq!(typed.parse::<JoinCode>().unwrap(), code, "{typed}");
            }
            assert_eq!(text[PREFIX.len()..].parse::<JoinCode>().unwrap(), code);
        }
    }

    #[test]
    fn every_mistyped_letter_is_noticed() {
        let text = sample().to_text().unwrap();
        for (at, letter) in text.char_indices().skip(PREFIX.len()).filter(|(_, c)| *c != '-') {
            let other = if letter == '7' { "8" } else { "7" };
            let mut typed = text.clone();
            typed.replace_range(at..=at, other);
            assert_eq!(typed.parse::<JoinCode>(), Err(JoinCodeError::Checksum), "{typed}");
            assert!(text[..at].parse::<JoinCode>().is_err());
        }
        assert_eq!("ferry-U".parse::<JoinCode>(), Err(JoinCodeError::Character('U')));
        assert_eq!("".parse::<JoinCode>(), Err(JoinCodeError::Checksum));
        assert_eq!("é".repeat(9).parse::<JoinCode>(), Err(JoinCodeError::Character('é')));
    }

    #[test]
    fn a_newer_version_and_strange_content_are_refused() {
        let with_sum = |mut bytes: Vec<u8>| {
            bytes.extend(checksum(&bytes));
            base32(&bytes).parse::<JoinCode>()
        };
        assert_eq!(with_sum(vec![2, 0]), Err(JoinCodeError::Version(2)));
        assert!(matches!(with_sum(vec![1]), Err(JoinCodeError::Content(_))));
        assert!(matches!(with_sum(vec![1, 8, 1]), Err(JoinCodeError::Content(_))));
        assert!(matches!(with_sum(vec![1, 0, 0]), Err(JoinCodeError::Content(_))));
        assert!(matches!(with_sum(vec![1, 0, 1, 9]), Err(JoinCodeError::Content(_))));
        assert!(matches!(with_sum(vec![1, 0, 1, 1, 200]), Err(JoinCodeError::Content(_))));
        assert!(JoinCode { addresses: vec!["a b:1".into()], ..sample() }.to_text().is_err());
        assert!(JoinCode { addresses: vec!["host".into()], ..sample() }.to_text().is_err());
        assert!(JoinCode { secret: String::new(), ..sample() }.to_text().is_err());
    }

    #[test]
    fn urls_follow_the_policy() {
        let urls: Vec<String> = sample().urls().unwrap().iter().map(ToString::to_string).collect();
        assert!(urls.iter().all(|url| url.starts_with("https://") && url.contains("#sha256:5a5a")), "{urls:?}");
        let plain = JoinCode { pin: None, tls: false, ..sample() };
        assert_eq!(plain.urls().unwrap().len(), 2);
        let public = JoinCode { addresses: vec!["8.8.8.8:80".into()], ..plain };
        assert!(public.urls().is_err());
    }
}
