//! A plain HTTP/1.1 client: it must be easier to trust than what it tests, so it is a socket and a few lines.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the status line.
    pub status: u16,
    /// Names in lower case; the last of equal ones.
    pub headers: BTreeMap<String, String>,
    /// As text.
    pub body: String,
}

impl Answer {
    /// What the test application says of itself or of the request: the value behind `name: `.
    pub fn says(&self, name: &str) -> Option<&str> {
        self.body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Status and the body's first line, for messages.
    pub fn summary(&self) -> String {
        format!("{} {}", self.status, self.body.lines().next().unwrap_or_default())
    }
}

/// For a connection to be taken.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A GET request on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where the connection goes.
    pub server: SocketAddr,
    /// Where it comes from, if that matters: an address of this machine.
    pub from: Option<IpAddr>,
    /// The `Host` header.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Value of the `Cookie` header; empty = none.
    pub cookie: &'a str,
    /// For the whole answer.
    pub limit: Duration,
}

impl Ask<'_> {
    /// Sends it and reads the answer.
    ///
    /// # Errors
    /// If there is no connection within a second, no answer within the limit, or what comes is not HTTP.
    pub fn send(&self) -> Result<Answer> {
        let mut connection = match self.from {
            None => TcpStream::connect_timeout(&self.server, CONNECT_LIMIT),
            Some(from) => Socket::new(Domain::for_address(self.server), Type::STREAM, None).and_then(|socket| {
                socket.bind(&SocketAddr::new(from, 0).into())?;
                socket.connect_timeout(&self.server.into(), CONNECT_LIMIT)?;
                Ok(socket.into())
            }),
        }
        .context("cannot connect")?;
        connection.set_read_timeout(Some(self.limit))?;
        connection.set_write_timeout(Some(self.limit))?;
        connection.set_nodelay(true)?;
        let cookie = match self.cookie {
            "" => String::new(),
            cookie => format!("cookie: {cookie}\r\n"),
        };
        write!(
            connection,
            "GET {} HTTP/1.1\r\nhost: {}\r\n{cookie}connection: close\r\n\r\n",
            self.path, self.host
        )?;
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).context("no whole answer")?;
        parse(&bytes)
    }
}

/// One GET request on a connection of its own.
///
/// # Errors
/// If there is no connection within a second, no answer within `limit`, or what comes is not HTTP.
pub fn get(server: SocketAddr, host: &str, path: &str, limit: Duration) -> Result<Answer> {
    let (from, cookie) = (None, "");
    Ask {
        server,
        from,
        host,
        path,
        cookie,
        limit,
    }
    .send()
}

/// A connection that was upgraded, as WebSockets are: the application sends back what it gets.
#[derive(Debug)]
pub struct Upgraded {
    connection: TcpStream,
}

impl Upgraded {
    /// Asks for the upgrade of `/socket`.
    ///
    /// # Errors
    /// If the answer is not 101 Switching Protocols.
    pub fn open(server: SocketAddr, host: &str) -> Result<Upgraded> {
        Upgraded::open_at(server, host, "/socket")
    }

    /// Asks for the upgrade of a path.
    ///
    /// # Errors
    /// If the answer is not 101 Switching Protocols.
    pub fn open_at(server: SocketAddr, host: &str, path: &str) -> Result<Upgraded> {
        let mut connection = TcpStream::connect_timeout(&server, CONNECT_LIMIT).context("cannot connect")?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let headers = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
        write!(connection, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            connection.read_exact(&mut byte).context("no whole head")?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head);
        if !head.starts_with("HTTP/1.1 101 ") {
            bail!("no upgrade: {}", head.lines().next().unwrap_or_default());
        }
        Ok(Upgraded { connection })
    }

    /// Sends a text and waits until it comes back.
    ///
    /// # Errors
    /// If the connection is closed, or something else comes.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        self.connection.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        self.connection.read_exact(&mut back).context("nothing comes back")?;
        if back != text.as_bytes() {
            bail!("{text:?} comes back as {:?}", String::from_utf8_lossy(&back));
        }
        Ok(())
    }
}

/// A request whose body has no end yet, and its answer: the application sends each piece of it back.
#[derive(Debug)]
pub struct Streaming {
    connection: TcpStream,
}

impl Streaming {
    /// Begins it at `/echo`, with a first word.
    ///
    /// # Errors
    /// If the answer is not 200 in chunks.
    pub fn open(server: SocketAddr, host: &str) -> Result<Streaming> {
        let mut connection = TcpStream::connect_timeout(&server, CONNECT_LIMIT).context("cannot connect")?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        connection.set_nodelay(true)?;
        write!(
            connection,
            "POST /echo HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        let mut streaming = Streaming { connection };
        streaming.say("first")?;
        let head = streaming.read_until("\r\n\r\n")?.to_lowercase();
        if !head.starts_with("http/1.1 200 ") || !head.contains("transfer-encoding: chunked") {
            bail!("no stream: {head:?}");
        }
        streaming.hear("first")?;
        Ok(streaming)
    }

    /// Sends a word and waits until it comes back.
    ///
    /// # Errors
    /// If the stream has ended, or something else comes.
    pub fn echo(&mut self, word: &str) -> Result<()> {
        self.say(word)?;
        self.hear(word)
    }

    fn say(&mut self, word: &str) -> Result<()> {
        write!(self.connection, "{:x}\r\n{word}\r\n", word.len())?;
        Ok(())
    }

    /// However many chunks it comes in.
    fn hear(&mut self, word: &str) -> Result<()> {
        let mut heard = Vec::new();
        while heard.len() < word.len() {
            let size = self.read_until("\r\n")?;
            let size = usize::from_str_radix(size.trim_end(), 16).context("a chunk's size is no number")?;
            if size == 0 {
                bail!("the stream ended");
            }
            let mut chunk = vec![0; size + 2];
            self.connection.read_exact(&mut chunk).context("nothing comes back")?;
            heard.extend(&chunk[..size]);
        }
        if heard != word.as_bytes() {
            bail!("{word:?} comes back as {:?}", String::from_utf8_lossy(&heard));
        }
        Ok(())
    }

    fn read_until(&mut self, end: &str) -> Result<String> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(end.as_bytes()) {
            self.connection.read_exact(&mut byte).context("nothing comes back")?;
            bytes.extend(byte);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("no whole head: {text:?}")
    };
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_string()))
        .collect();
    let chunked = headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let body = if chunked { unchunk(body)? } else { body.to_string() };
    if let Some(length) = headers.get("content-length")
        && length.parse() != Ok(body.len())
    {
        bail!("a body of {} bytes instead of {length}", body.len());
    }
    Ok(Answer {
        status: status.with_context(|| format!("no status in {head:?}"))?,
        headers,
        body,
    })
}

/// RFC 9112 §7.1, without extensions and trailers.
fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without size")?;
        let size = usize::from_str_radix(size, 16).context("a chunk's size is no number")?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(after.get(..size).context("a chunk is cut off")?);
        rest = after.get(size + 2..).context("a chunk is cut off")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_length_is_read() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 10\r\n\r\ntask: a.1\n").unwrap();
        assert_eq!((answer.status, answer.says("task")), (200, Some("a.1")));
        assert_eq!(answer.headers["x-a"], "b");
    }

    #[test]
    fn an_answer_that_was_cut_off_is_an_error() {
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "what\r\n\r\n",
        ] {
            assert!(parse(cut.as_bytes()).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let answer =
            parse(b"HTTP/1.1 404 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "abcd"));
    }
}
