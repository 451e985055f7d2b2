//! A server on a thread of its own, with its own runtime, beside whatever else the program does.

use std::{thread, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    Error, Exit, Options, Ready,
    control::{self, Handle, Order},
    run,
};

/// How long a server may take to hand everything over, and a little for the way there.
const LEAVE_MAX: Duration = Duration::from_millis(10_500);
/// How long a server that was told to stop at once may take.
const STOP_MAX: Duration = Duration::from_secs(1);

/// A server that runs beside us. Dropped, it is told to stop at once.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    end: oneshot::Receiver<Result<Exit, Error>>,
}

/// Starts a server and waits until it serves. An error where it cannot start; `Ok(Err(exit))` where it stopped before
/// it served, because its id is taken.
pub async fn spawn(options: Options) -> Result<Result<(Running, Ready), Exit>, Error> {
    let (control, mut handle) = control::pair();
    let (ended, end) = oneshot::channel();
    thread::Builder::new()
        .name("server".into())
        .spawn(move || {
            let result = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::Runtime)
                .and_then(|runtime| runtime.block_on(run(options, control)));
            let _nobody_waits = ended.send(result);
        })
        .map_err(Error::Runtime)?;
    let ready = handle.ready().await;
    let running = Running { handle, end };
    match ready {
        Some(ready) => Ok(Ok((running, ready))),
        None => running.ended().await.map(Err),
    }
}

impl Running {
    /// For orders.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Leaves the cluster and waits until all is handed over, 10 s at most; then stops in any case.
    pub async fn leave(mut self) -> Result<Exit, Error> {
        self.handle.order(Order::Leave);
        if let Ok(end) = timeout(LEAVE_MAX, &mut self.end).await {
            return end.unwrap_or(Ok(Exit::AtOnce));
        }
        self.handle.order(Order::StopAtOnce);
        match timeout(STOP_MAX, &mut self.end).await {
            Ok(Ok(end)) => end,
            _ => Ok(Exit::AtOnce),
        }
    }

    /// Waits until it has ended by itself.
    async fn ended(mut self) -> Result<Exit, Error> {
        (&mut self.end).await.unwrap_or(Ok(Exit::AtOnce))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.order(Order::StopAtOnce);
    }
}
