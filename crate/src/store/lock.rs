//! The exclusive right to decide in a scope.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use futures::channel::oneshot;

use crate::error::{Error, Result};

/// A held lock; dropping it lets the next one in.
pub struct ScopeLock(Option<Box<dyn FnOnce()>>);

impl ScopeLock {
    /// A lock that `release` gives back.
    pub fn new(release: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(release)))
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for ScopeLock {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for ScopeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeLock")
    }
}

/// Those who wait for a key, first come first served, within one thread.
///
/// The lock itself travels through the channel: a waiter that was dropped in the meantime drops
/// it too, and the next one gets it.
#[derive(Clone, Default)]
pub struct LockQueue {
    held: Rc<RefCell<HashMap<String, VecDeque<oneshot::Sender<ScopeLock>>>>>,
}

impl LockQueue {
    /// Waits for `key`.
    pub async fn lock(&self, key: &str) -> Result<ScopeLock> {
        let receiver = {
            let mut held = self.held.borrow_mut();
            if let Some(waiting) = held.get_mut(key) {
                let (sender, receiver) = oneshot::channel();
                waiting.push_back(sender);
                receiver
            } else {
                held.insert(key.to_owned(), VecDeque::new());
                drop(held);
                return Ok(self.grant(key));
            }
        };
        receiver.await.map_err(|_| Error::internal("a queue of locks was dropped while one waited"))
    }

    fn grant(&self, key: &str) -> ScopeLock {
        let (queue, key) = (self.clone(), key.to_owned());
        ScopeLock::new(move || queue.release(&key))
    }

    fn release(&self, key: &str) {
        loop {
            let next = {
                let mut held = self.held.borrow_mut();
                let next = held.get_mut(key).and_then(VecDeque::pop_front);
                if next.is_none() {
                    held.remove(key);
                }
                next
            };
            match next.map(|sender| sender.send(self.grant(key))) {
                None | Some(Ok(())) => return,
                Some(Err(unclaimed)) => unclaimed.forget(),
            }
        }
    }
}

/// A lock that all tabs and workers of the page's origin share (`navigator.locks`); nothing
/// where the browser has none.
#[cfg(target_arch = "wasm32")]
pub(super) async fn web_lock(name: &str) -> Result<Option<ScopeLock>> {
    use futures::future::{Either, select};
    use js_sys::{Function, Object, Promise, Reflect};
    use wasm_bindgen::prelude::*;
    use wasm_bindgen_futures::JsFuture;

    let field = |object: &JsValue, name: &str| {
        Reflect::get(object, &name.into()).ok().filter(|value| !value.is_undefined() && !value.is_null())
    };
    let locks = field(&js_sys::global(), "navigator").and_then(|navigator| field(&navigator, "locks"));
    let Some(locks) = locks else { return Ok(None) };
    let Some(request) = field(&locks, "request").and_then(|request| request.dyn_into::<Function>().ok())
    else {
        return Ok(None);
    };
    let refused = |error: JsValue| {
        let error = error.as_string().unwrap_or_else(|| format!("{error:?}"));
        Error::new(crate::error::ErrorCode::StoreBlocked, "the browser refused a lock").with_source(error)
    };
    let options = Object::new();
    Reflect::set(&options, &"mode".into(), &"exclusive".into()).map_err(refused)?;
    let (granted, grant) = oneshot::channel();
    // The browser holds the lock until the promise that this function returns is resolved.
    let hold = Closure::once_into_js(move |_lock: JsValue| -> Promise {
        let mut release = None;
        let held = Promise::new(&mut |resolve, _| release = Some(resolve));
        let lock = ScopeLock::new(move || {
            if let Some(release) = release {
                let _ = release.call0(&JsValue::UNDEFINED);
            }
        });
        // Where nobody waits any more, the lock comes back in the error and is dropped.
        let _ = granted.send(lock);
        held
    });
    let done: Promise =
        request.call3(&locks, &name.into(), &options, &hold).map_err(refused)?.dyn_into().map_err(refused)?;
    match select(grant, JsFuture::from(done)).await {
        Either::Left((Ok(lock), _)) => Ok(Some(lock)),
        Either::Left((Err(_), done)) => match done.await {
            Err(error) => Err(refused(error)),
            Ok(_) => Err(Error::internal("a lock of the browser ended before it was granted")),
        },
        Either::Right((Err(error), _)) => Err(refused(error)),
        Either::Right((Ok(_), _)) => {
            Err(Error::internal("a lock of the browser ended before it was granted"))
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures_lite::future::block_on;

    #[test]
    fn waiters_get_the_lock_in_order_and_a_waiter_that_gave_up_does_not_hold_it() {
        let queue = LockQueue::default();
        let first = queue.lock("a").now_or_never().unwrap().unwrap();
        assert!(queue.lock("b").now_or_never().is_some());
        let mut second = Box::pin(queue.lock("a"));
        let mut third = Box::pin(queue.lock("a"));
        let mut fourth = Box::pin(queue.lock("a"));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(second);
        drop(first);
        // Granted to the third, who is dropped before looking.
        drop(third);
        let fourth = block_on(fourth).unwrap();
        assert!(queue.lock("a").now_or_never().is_none());
        drop(fourth);
        assert!(queue.lock("a").now_or_never().is_some());
        assert!(queue.held.borrow().is_empty());
    }
}
