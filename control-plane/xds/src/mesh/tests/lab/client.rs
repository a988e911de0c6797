//! What pods' processes do: plain clients that know of no proxy.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::application::read_head;
use super::network::Namespace;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Namespace {
    /// `GET` with these headers on a new connection: head and body of the answer.
    pub async fn get(&self, address: &str, headers: &str) -> Result<(String, String), String> {
        let mut stream = self.connect(address).await.map_err(|e| e.to_string())?;
        get(&mut stream, "HTTP/1.1", headers).await
    }

    /// Whom the application saw, or what went wrong.
    pub async fn source(&self, address: &str) -> String {
        match self.get(address, "").await {
            Ok((head, body)) if head.starts_with("HTTP/1.1 200") => {
                body.lines().next().unwrap_or_default().to_owned()
            }
            Ok((head, _)) => head.lines().next().unwrap_or_default().to_owned(),
            Err(error) => error,
        }
    }

    /// The answer to a request with HTTP/2.
    pub async fn get_http2(&self, address: &str) -> Result<String, String> {
        Http2::new(self, address).await?.get().await
    }

    /// A gRPC call that the server is to answer with this status.
    pub async fn call_for(&self, address: &str, status: &str) -> Result<(), String> {
        let stream = self.connect(address).await.map_err(|e| e.to_string())?;
        let call = async {
            let (mut client, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(connection);
            let request = http::Request::post(format!("http://{address}/shop.Cart/Get"))
                .header("content-type", "application/grpc")
                .header("x-wanted-status", status);
            let (response, _) = client.send_request(request.body(()).unwrap_or_default(), true)?;
            let mut body = response.await?.into_body();
            while let Some(data) = body.data().await {
                data?;
            }
            body.trailers().await.map(drop)
        };
        timeout(PATIENCE, call).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    /// Waits for the greeting, says something, hears it back, closes its half and hears the last word.
    pub async fn talk(&self, address: &str) -> Result<String, String> {
        let talk = async {
            let mut stream = self.connect(address).await?;
            let greeting = line(&mut stream).await?;
            stream.write_all(b"ping\n").await?;
            let echo = line(&mut stream).await?;
            stream.shutdown().await?;
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await?;
            Ok::<_, std::io::Error>(format!("{greeting} {echo} {}", rest.trim_end()))
        };
        timeout(PATIENCE, talk).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

/// A connection with HTTP/2.
pub struct Http2 {
    address: String,
    client: h2::client::SendRequest<Bytes>,
}

impl Http2 {
    pub async fn new(from: &Namespace, address: &str) -> Result<Self, String> {
        let stream = from.connect(address).await.map_err(|e| e.to_string())?;
        let (client, connection) = h2::client::handshake(stream).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Self { address: address.to_owned(), client })
    }

    /// The body of the answer.
    pub async fn get(&mut self) -> Result<String, String> {
        let answer = async {
            let mut client = self.client.clone().ready().await?;
            let request =
                http::Request::get(format!("http://{}/two", self.address)).body(()).unwrap_or_default();
            let (response, _) = client.send_request(request, true)?;
            let mut body = response.await?.into_body();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                let data: Bytes = data?;
                text.extend_from_slice(&data);
            }
            Ok::<_, h2::Error>(String::from_utf8_lossy(&text).into_owned())
        };
        let answer = timeout(PATIENCE, answer).await.map_err(|e| e.to_string())?;
        answer.map_err(|e| e.to_string())
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// With names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first line of the body: whom the application saw.
    pub fn source(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }

    /// Values of a header of the request, as the application got it.
    pub fn asked(&self, name: &str) -> String {
        let lines = self.body.lines().filter_map(|line| line.split_once(": "));
        let values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.collect::<Vec<_>>().join(",")
    }
}

impl Namespace {
    /// `GET` of a path, with these headers, on a new connection.
    pub async fn ask(&self, address: &str, path: &str, headers: &str) -> Result<Answer, String> {
        let answer = async {
            let mut stream = self.connect(address).await.map_err(|e| e.to_string())?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
            let head = read_head(&mut stream).await.ok_or("no answer")?;
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("no status")?;
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
            let headers: Vec<_> =
                lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let mut answer = Answer { status, headers, body: String::new() };
            let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
            answer.body = String::from_utf8_lossy(&body).into_owned();
            Ok(answer)
        };
        timeout(PATIENCE, answer).await.map_err(|e| e.to_string())?
    }

    /// A gRPC client's request: the `grpc-status` that comes with the head, if one does, and the body.
    pub async fn call(
        &self,
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Option<String>, String), String> {
        let stream = self.connect(address).await.map_err(|e| e.to_string())?;
        let answer = async {
            let (mut client, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(connection);
            let mut request = http::Request::post(format!("http://{address}{path}"))
                .header("content-type", "application/grpc");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (response, _) = client.send_request(request.body(()).unwrap_or_default(), true)?;
            let response = response.await?;
            let status = response.headers().get("grpc-status").and_then(|value| value.to_str().ok());
            let status = status.map(str::to_owned);
            let mut body = response.into_body();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                let data: Bytes = data?;
                text.extend_from_slice(&data);
            }
            Ok::<_, h2::Error>((status, String::from_utf8_lossy(&text).into_owned()))
        };
        let answer = timeout(PATIENCE, answer).await.map_err(|e| e.to_string())?;
        answer.map_err(|e| e.to_string())
    }
}

/// A request on this connection.
pub async fn get(stream: &mut TcpStream, version: &str, headers: &str) -> Result<(String, String), String> {
    let answer = async {
        let request = format!("GET /path?q=1 {version}\r\nHost: shop.example\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let head = read_head(stream).await.ok_or("no answer")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
        Ok((head, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(PATIENCE, answer).await.map_err(|e| e.to_string())?
}

pub async fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            byte => line.push(byte),
        }
    }
}
