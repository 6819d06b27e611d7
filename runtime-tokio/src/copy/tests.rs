use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::*;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

/// Bytes that say where they are.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed)
        .collect()
}

/// How the bytes travel in a test.
#[derive(Clone, Copy, Debug)]
enum By {
    Kernel,
    NoPipes,
    Memory,
}

const ALL: [By; 3] = [By::Kernel, By::NoPipes, By::Memory];

/// `client` and `app` are the far ends of a connection that is passed on; returns when it ended.
async fn pass(by: By, mut a: TcpStream, mut b: TcpStream, moved: &Moved) -> io::Result<()> {
    match by {
        By::Kernel => through_kernel(&a, &b, moved).await,
        By::NoPipes => through_pipes(&a, &b, moved, 0).await,
        By::Memory => through_memory(&mut a, &mut b, moved).await,
    }
}

#[test]
fn large_transfers_go_both_ways_at_once_and_are_counted() {
    for by in ALL {
        run(async {
            let ((client, a), (app, b)) = (pair().await, pair().await);
            let (up, down) = (pattern(5_000_003, 1), pattern(7_000_001, 2));
            let exchange = |stream: TcpStream, sends: Vec<u8>| async move {
                let (mut read, mut write) = stream.into_split();
                let sending = spawn_local(async move {
                    write.write_all(&sends).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                sending.await.unwrap();
                got
            };
            let moved = Moved::new(Clock::system());
            let client = spawn_local(exchange(client, up.clone()));
            let app = spawn_local(exchange(app, down.clone()));
            pass(by, a, b, &moved).await.unwrap();
            assert!(app.await.unwrap() == up, "{by:?}: what the app got");
            assert!(client.await.unwrap() == down, "{by:?}: what the client got");
            assert_eq!(moved.bytes(), (5_000_003, 7_000_001), "{by:?}");
            assert_eq!(OPEN.get(), 0, "every pipe was given back");
        });
    }
}

#[test]
fn a_side_that_has_ended_still_hears_the_other() {
    for by in ALL {
        run(async {
            let ((mut client, a), (mut app, b)) = (pair().await, pair().await);
            let passing = spawn_local(async move {
                let moved = Moved::new(Clock::system());
                pass(by, a, b, &moved).await
            });
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            app.read_to_end(&mut heard).await.unwrap(); // ends, although the app has said nothing yet
            assert_eq!(heard, b"question");
            app.write_all(b"answer").await.unwrap();
            drop(app);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer");
            passing.await.unwrap().unwrap();
        });
    }
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer() {
    for by in ALL {
        run(async {
            let ((client, a), (mut app, b)) = (pair().await, pair().await);
            let passing = spawn_local(async move {
                let moved = Moved::new(Clock::system());
                pass(by, a, b, &moved).await
            });
            // All that sockets and pipe take, and not a byte more: the client cannot write any more, and stays so.
            let piece = pattern(1 << 20, 7);
            let mut sent = 0;
            let mut idle_rounds = 0;
            while idle_rounds < 2_000 {
                match client.try_write(&piece) {
                    Ok(count) => {
                        sent += count;
                        idle_rounds = 0;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        idle_rounds += 1;
                        tokio::task::yield_now().await;
                    }
                }
                assert!(
                    sent < 64 << 20,
                    "{by:?}: nobody reads, and the client wrote {sent} bytes"
                );
            }
            client.into_std().unwrap().shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            app.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), sent, "{by:?}");
            drop(app);
            passing.await.unwrap().unwrap();
        });
    }
}

#[test]
fn a_reset_ends_it_and_leaves_no_pipe_behind() {
    for by in ALL {
        run(async {
            let ((client, a), (mut app, b)) = (pair().await, pair().await);
            let passing = spawn_local(async move {
                let moved = Moved::new(Clock::system());
                pass(by, a, b, &moved).await
            });
            app.write_all(b"hello").await.unwrap();
            SockRef::from(&client)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
            drop(client);
            passing.await.unwrap().expect_err("the client reset its connection");
            let mut rest = Vec::new();
            let _ = app.read_to_end(&mut rest).await; // ends, one way or the other
            assert_eq!(OPEN.get(), 0);
        });
    }
}
