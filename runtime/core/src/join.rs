//! How a node becomes a member: a token that a person copies, and one exchange with the node that issued it.
//!
//! The token names the issuer's key, so the joiner knows whom it talks to before it shows the secret. Whoever asks with
//! anything else than a good token gets `Denied`, whatever the cause.
//!
//! Token: `vj1.` and the base64url, without padding, of
//!
//! | bytes | field |
//! |---|---|
//! | 8 | cluster id, big-endian |
//! | 8 | token id, big-endian |
//! | 16 | secret |
//! | 32 | Ed25519 public key of the issuer |
//!
//! Exchange, over a stream of [`Protocol::Join`]: `len u32 LE`, then that many bytes of postcard, at most 64 KiB; the joiner
//! sends a [`JoinRequest`], the issuer a [`JoinAnswer`], and that is all.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use base64::DecodeError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::identity::PublicKey;
use crate::transport::{AuthStream, ClusterTransport, Protocol};

/// Largest body of the exchange; the answer carries the records of all members.
pub const MAX_FRAME: usize = 64 * 1024;
/// The issuer's time for the exchange, its decision included.
const SERVE_LIMIT: Duration = Duration::from_secs(10);
/// The joiner waits a little longer: it should not give up on what the issuer is about to grant.
const REQUEST_LIMIT: Duration = Duration::from_secs(12);

const PREFIX: &str = "vj1.";
const TOKEN_BYTES: usize = 64;
/// `TOKEN_BYTES` in base64 without padding.
const TOKEN_CHARS: usize = (TOKEN_BYTES * 4).div_ceil(3);

/// The right to join a cluster. Whoever holds its text can use it: `Debug` hides the secret, `Display` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster that it is good for.
    pub cluster_id: u64,
    /// Its number there.
    pub token_id: u64,
    /// The key of the node that issued it and answers to it.
    pub issuer: PublicKey,
    secret: [u8; 16],
}

impl JoinToken {
    /// Draws a token that nobody can guess.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate(cluster_id: u64, issuer: PublicKey) -> io::Result<Self> {
        let (mut token_id, mut secret) = ([0; 8], [0; 16]);
        aws_lc_rs::rand::fill(&mut token_id).map_err(|_| io::Error::other("no random bytes"))?;
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
        Ok(Self { cluster_id, token_id: u64::from_be_bytes(token_id), issuer, secret })
    }

    /// What the cluster keeps of the secret: its SHA-256.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    fn from_bytes(bytes: &[u8; TOKEN_BYTES]) -> Option<Self> {
        let (cluster_id, rest) = bytes.split_first_chunk()?;
        let (token_id, rest) = rest.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        Some(Self {
            cluster_id: u64::from_be_bytes(*cluster_id),
            token_id: u64::from_be_bytes(*token_id),
            secret: *secret,
            issuer: PublicKey(rest.try_into().ok()?),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, id) = (self.cluster_id.to_be_bytes(), self.token_id.to_be_bytes());
        let bytes = [&cluster[..], &id, &self.secret, &self.issuer.0].concat();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("cluster_id", &format_args!("{:016x}", self.cluster_id))
            .field("token_id", &format_args!("{:016x}", self.token_id))
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Why a text is no token. It never repeats the text, which may hold most of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with the version.
    #[error("a join token begins with `{PREFIX}`")]
    Prefix,
    /// It was cut, or something was added.
    #[error("a join token has {TOKEN_CHARS} characters after `{PREFIX}`, not {found}")]
    Length {
        /// Characters after the prefix.
        found: usize,
    },
    /// It holds something else than letters, digits, `-` and `_`.
    #[error("the join token has a wrong character at position {at}")]
    Character {
        /// Where, counted from 1 in the whole token.
        at: usize,
    },
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let code = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        // In characters of the text, so that the figure is what a person counts.
        let found = code.chars().count();
        if found != TOKEN_CHARS {
            return Err(TokenError::Length { found });
        }
        let bytes = URL_SAFE_NO_PAD.decode(code).map_err(|error| wrong_character(code, &error))?;
        let bytes = bytes.as_slice().try_into().map_err(|_| TokenError::Length { found })?;
        Self::from_bytes(bytes).ok_or(TokenError::Length { found })
    }
}

fn wrong_character(code: &str, error: &DecodeError) -> TokenError {
    let (DecodeError::InvalidByte(offset, _) | DecodeError::InvalidLastSymbol { offset, .. }) = error else {
        return TokenError::Length { found: code.chars().count() };
    };
    let before = code.char_indices().take_while(|(start, _)| start < offset).count();
    TokenError::Character { at: PREFIX.len() + before + 1 }
}

/// A token and where its issuer listens, `TOKEN@HOST:PORT`: all that a new node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinUrl {
    /// The token.
    pub token: JoinToken,
    /// `HOST:PORT`; an IPv6 address is in brackets.
    pub addr: String,
}

impl fmt::Display for JoinUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.token, self.addr)
    }
}

/// Why a text is no join address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinUrlError {
    /// It names no host.
    #[error("expected TOKEN@HOST:PORT, found no `@`")]
    NoHost,
    /// What stands before the `@`.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What stands behind the `@`.
    #[error("`{0}` is not HOST:PORT with a port from 1 to 65535 and an IPv6 address in brackets")]
    Address(String),
}

impl FromStr for JoinUrl {
    type Err = JoinUrlError;

    /// White space around it is left out: it comes with copying, and at the end of files.
    fn from_str(text: &str) -> Result<Self, JoinUrlError> {
        let (token, addr) = text.trim().split_once('@').ok_or(JoinUrlError::NoHost)?;
        let token = token.parse()?;
        if !is_host_port(addr) {
            return Err(JoinUrlError::Address(addr.to_owned()));
        }
        Ok(Self { token, addr: addr.to_owned() })
    }
}

fn is_host_port(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let good_host = if let Some(ip) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        ip.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        // RFC 1035 section 2.3.4: a name has at most 255 octets.
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (1..=255).contains(&host.len()) && host.chars().all(allowed)
    };
    let digits = port.bytes().all(|digit| digit.is_ascii_digit());
    good_host && digits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// What a new node sends. Its key is the stream's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's number.
    pub token_id: u64,
    /// The token's secret.
    pub secret: [u8; 16],
    /// What the node says of itself, in the words of the membership.
    pub record: Vec<u8>,
}

impl JoinRequest {
    /// To be compared with the [`JoinToken::secret_hash`] that the cluster keeps.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token_id", &format_args!("{:016x}", self.token_id))
            .field("record_bytes", &self.record.len())
            .finish_non_exhaustive()
    }
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// It is a member; what it needs to know follows, in the words of the membership.
    Joined(Vec<u8>),
    /// It is not.
    Denied,
}

/// Why a node is not a member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The issuer cannot be reached; it makes sense to try again.
    #[error("cannot reach {addr}")]
    Unreachable {
        /// Where it should be.
        addr: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another node than the token's issuer answers there.
    #[error("the node at {addr} did not issue this token")]
    WrongNode {
        /// Where it should be.
        addr: String,
    },
    /// There were too many attempts from this address; one is possible again within a minute.
    #[error("{addr} takes no more attempts to join for now, retry in a minute")]
    RateLimited {
        /// Who says so.
        addr: String,
    },
    /// The token is wrong, used up, expired or revoked.
    #[error("the cluster denied the token; make another with `village token new`")]
    Denied,
    /// The exchange broke off, so that this node may or may not be a member. Trying again with the same token is right.
    #[error("no answer from {addr}")]
    Interrupted {
        /// Who should have answered.
        addr: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// What the node says of itself does not fit into one frame.
    #[error("the record of this node exceeds {MAX_FRAME} bytes")]
    TooLarge,
}

/// Asks the issuer of the token to become a member. Returns what the cluster wants a new member to know.
///
/// # Cancel safety
/// Dropped, it may have made this node a member all the same; the same as [`JoinError::Interrupted`].
///
/// # Errors
/// See [`JoinError`].
pub async fn request_join(
    transport: &dyn ClusterTransport,
    url: &JoinUrl,
    record: Vec<u8>,
) -> Result<Vec<u8>, JoinError> {
    let addr = || url.addr.clone();
    let request = JoinRequest { token_id: url.token.token_id, secret: url.token.secret, record };
    let request = frame(&request).map_err(|_| JoinError::TooLarge)?;
    let dialled = transport.dial(&url.addr, url.token.issuer, Protocol::Join).await;
    let mut stream = dialled.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => JoinError::WrongNode { addr: addr() },
        io::ErrorKind::PermissionDenied => JoinError::RateLimited { addr: addr() },
        _ => JoinError::Unreachable { addr: addr(), source },
    })?;
    let exchange = async {
        write(&mut stream.io, &request).await?;
        read(&mut stream.io).await
    };
    match timeout(REQUEST_LIMIT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(JoinAnswer::Joined(answer)) => Ok(answer),
        Ok(JoinAnswer::Denied) => Err(JoinError::Denied),
        Err(source) => Err(JoinError::Interrupted { addr: addr(), source }),
    }
}

/// Serves one node that wants to join: reads its request, has it decided, answers. `decide` returns what a new member needs
/// to know, or nothing for whatever reason. It gets [`AuthStream::peer`] from its caller, who has it.
///
/// # Cancel safety
/// Dropped, it says nothing; what was decided stays decided.
///
/// # Errors
/// When the exchange broke off or took too long, so that the joiner does not know the answer.
pub async fn serve_join(
    mut stream: AuthStream,
    decide: impl AsyncFnOnce(JoinRequest) -> Option<Vec<u8>>,
) -> io::Result<()> {
    let exchange = async {
        let answer = match read::<JoinRequest>(&mut stream.io).await {
            Ok(request) => decide(request).await.map_or(JoinAnswer::Denied, JoinAnswer::Joined),
            // One wording for all who have no good token.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => JoinAnswer::Denied,
            Err(error) => return Err(error),
        };
        write(&mut stream.io, &frame(&answer)?).await?;
        stream.io.shutdown().await
    };
    timeout(SERVE_LIMIT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn frame(body: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = postcard::to_allocvec(body).map_err(io::Error::other)?;
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let len = len.ok_or_else(|| io::Error::other(format!("a body of {} bytes exceeds {MAX_FRAME}", body.len())))?;
    Ok([&len.to_le_bytes()[..], &body].concat())
}

async fn write(mut io: impl AsyncWrite + Unpin, frame: &[u8]) -> io::Result<()> {
    io.write_all(frame).await?;
    io.flush().await
}

/// Reads one frame. What is no frame is [`io::ErrorKind::InvalidData`].
async fn read<T: DeserializeOwned>(mut io: impl AsyncRead + Unpin) -> io::Result<T> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let len = usize::try_from(io.read_u32_le().await?).unwrap_or(usize::MAX);
    if len > MAX_FRAME {
        return Err(invalid(format!("a frame of {len} bytes exceeds {MAX_FRAME}")));
    }
    let mut body = vec![0; len];
    io.read_exact(&mut body).await?;
    match postcard::take_from_bytes(&body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(invalid(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
