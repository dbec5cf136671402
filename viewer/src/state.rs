//! Signals, memos and stored values that share one compiled body, whatever type they hold.
//!
//! Leptos compiles the whole of a signal anew for each type in it. The viewer has some seventy such types, which were a fifth of
//! its module. Here the types are known to the handles alone: behind them lies one kind of signal, of an erased value. The
//! handles have the names and the methods of Leptos' own, so a page does not see the difference.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use leptos::prelude as plain;
use leptos::prelude::{Get, GetUntracked, GetValue, LocalStorage, Notify, Track};
use leptos::task::spawn_local;

/// A value of any type.
type Shared = Arc<dyn Any + Send + Sync>;

/// The value as what it is. A handle and its value are made together, with one type.
fn value<T: 'static>(shared: &(dyn Any + Send + Sync)) -> &T {
    match shared.downcast_ref() {
        Some(value) => value,
        None => unreachable!("a handle has the type of its value"),
    }
}

/// What `look` finds in a value that can change.
fn looked<T: 'static, U>(shared: &Shared, look: impl FnOnce(&T) -> U) -> U {
    // A panic ends the page, so no value is left half changed.
    look(
        &value::<RwLock<T>>(&**shared)
            .read()
            .unwrap_or_else(PoisonError::into_inner),
    )
}

/// What `change` says of a value that it changes.
fn changed<T: 'static, U>(shared: &Shared, change: impl FnOnce(&mut T) -> U) -> U {
    change(
        &mut value::<RwLock<T>>(&**shared)
            .write()
            .unwrap_or_else(PoisonError::into_inner),
    )
}

/// Implements what `derive` would ask of `T` too: a handle is a number, whatever it leads to.
macro_rules! handle {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

/// A value that others can follow.
pub struct RwSignal<T> {
    erased: plain::RwSignal<Shared>,
    of: PhantomData<fn() -> T>,
}

handle!(RwSignal);

impl<T: Send + Sync + 'static> RwSignal<T> {
    /// A signal with its first value.
    pub fn new(value: T) -> Self {
        Self {
            erased: plain::RwSignal::new(Arc::new(RwLock::new(value))),
            of: PhantomData,
        }
    }

    /// Follows it.
    pub fn track(self) {
        self.erased.track();
    }

    /// What `look` finds in the value, which is followed.
    pub fn with<U>(self, look: impl FnOnce(&T) -> U) -> U {
        looked(&self.erased.get(), look)
    }

    /// What `look` finds in the value.
    pub fn with_untracked<U>(self, look: impl FnOnce(&T) -> U) -> U {
        looked(&self.erased.get_untracked(), look)
    }

    /// The same; `None` once the page that made the signal is gone.
    pub fn try_with_untracked<U>(self, look: impl FnOnce(&T) -> U) -> Option<U> {
        Some(looked(&self.erased.try_get_untracked()?, look))
    }

    /// The value, which is followed.
    pub fn get(self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// The value.
    pub fn get_untracked(self) -> T
    where
        T: Clone,
    {
        self.with_untracked(T::clone)
    }

    /// The value; `None` once the page that made the signal is gone.
    pub fn try_get_untracked(self) -> Option<T>
    where
        T: Clone,
    {
        self.try_with_untracked(T::clone)
    }

    /// Changes the value.
    pub fn update(self, change: impl FnOnce(&mut T)) {
        changed(&self.erased.get_untracked(), change);
        self.erased.notify();
    }

    /// Changes the value; `None` once the page that made the signal is gone.
    pub fn try_update<U>(self, change: impl FnOnce(&mut T) -> U) -> Option<U> {
        let found = changed(&self.erased.try_get_untracked()?, change);
        self.erased.notify();
        Some(found)
    }

    /// Gives it another value.
    pub fn set(self, value: T) {
        let before = changed(&self.erased.get_untracked(), |kept| std::mem::replace(kept, value));
        drop(before);
        self.erased.notify();
    }

    /// Gives it another value, unless the page that made the signal is gone.
    pub fn try_set(self, value: T) {
        self.try_update(|kept| std::mem::replace(kept, value));
    }
}

/// A value that is worked out from others, and anew when they change. Who follows it hears only of other values.
pub struct Memo<T> {
    erased: plain::Memo<Shared>,
    of: PhantomData<fn() -> T>,
}

handle!(Memo);

impl<T: Send + Sync + 'static> Memo<T> {
    /// What `compute` makes; it is given the value before.
    pub fn new(compute: impl Fn(Option<&T>) -> T + Send + Sync + 'static) -> Self
    where
        T: PartialEq,
    {
        Self::new_with_compare(compute, |before, now| before != now)
    }

    /// The same, with `changed` to say whether a value is another one.
    pub fn new_with_compare(
        compute: impl Fn(Option<&T>) -> T + Send + Sync + 'static,
        changed: fn(Option<&T>, Option<&T>) -> bool,
    ) -> Self {
        let compute = move |before: Option<&Shared>| {
            let known = before.map(|before| value(&**before));
            let now = compute(known);
            let is_kept = !changed(known, Some(&now));
            match before.filter(|_| is_kept) {
                Some(before) => before.clone(),
                None => Arc::new(now) as Shared,
            }
        };
        Self {
            erased: memo(Box::new(compute)),
            of: PhantomData,
        }
    }

    /// Follows it.
    pub fn track(self) {
        self.erased.track();
    }

    /// What `look` finds in the value, which is followed.
    pub fn with<U>(self, look: impl FnOnce(&T) -> U) -> U {
        look(value(&*self.erased.get()))
    }

    /// What `look` finds in the value.
    pub fn with_untracked<U>(self, look: impl FnOnce(&T) -> U) -> U {
        look(value(&*self.erased.get_untracked()))
    }

    /// The value, which is followed.
    pub fn get(self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// The value.
    pub fn get_untracked(self) -> T
    where
        T: Clone,
    {
        self.with_untracked(T::clone)
    }

    /// The value; `None` once the page that made the memo is gone.
    pub fn try_get_untracked(self) -> Option<T>
    where
        T: Clone,
    {
        Some(value::<T>(&*self.erased.try_get_untracked()?).clone())
    }
}

/// Makes a memo's value of the one before.
type Recompute = Box<dyn Fn(Option<&Shared>) -> Shared + Send + Sync>;

fn memo(compute: Recompute) -> plain::Memo<Shared> {
    let is_other = |before: Option<&Shared>, now: Option<&Shared>| {
        !before.zip(now).is_some_and(|(before, now)| Arc::ptr_eq(before, now))
    };
    plain::Memo::new_with_compare(move |before| compute(before), is_other)
}

/// Something to read and follow: a signal, a memo, or what is worked out at each look.
pub struct Signal<T> {
    erased: plain::StoredValue<Shared>,
    of: PhantomData<fn() -> T>,
}

handle!(Signal);

/// What a [`Signal`] calls.
type Compute<T> = Box<dyn Fn() -> T + Send + Sync>;

impl<T: 'static> Signal<T> {
    /// What `compute` makes of what it reads.
    pub fn derive(compute: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let compute: Compute<T> = Box::new(compute);
        Self {
            erased: plain::StoredValue::new(Arc::new(compute)),
            of: PhantomData,
        }
    }

    /// The value, which is followed.
    pub fn get(self) -> T {
        value::<Compute<T>>(&*self.erased.get_value())()
    }

    /// The value.
    pub fn get_untracked(self) -> T {
        plain::untrack(move || self.get())
    }

    /// What `look` finds in the value, which is followed.
    pub fn with<U>(self, look: impl FnOnce(&T) -> U) -> U {
        look(&self.get())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Memo<T>> for Signal<T> {
    fn from(memo: Memo<T>) -> Self {
        Self::derive(move || memo.get())
    }
}

impl<T: Clone + Send + Sync + 'static> From<RwSignal<T>> for Signal<T> {
    fn from(signal: RwSignal<T>) -> Self {
        Self::derive(move || signal.get())
    }
}

/// A value that is there as long as the page that made it, and that nobody follows.
pub struct StoredValue<T> {
    erased: plain::StoredValue<Shared>,
    of: PhantomData<fn() -> T>,
}

handle!(StoredValue);

impl<T: Send + Sync + 'static> StoredValue<T> {
    /// Keeps a value.
    pub fn new(value: T) -> Self {
        Self {
            erased: plain::StoredValue::new(Arc::new(RwLock::new(value))),
            of: PhantomData,
        }
    }

    /// What `look` finds in the value.
    pub fn with_value<U>(self, look: impl FnOnce(&T) -> U) -> U {
        looked(&self.erased.get_value(), look)
    }

    /// The same; `None` once the page is gone.
    pub fn try_with_value<U>(self, look: impl FnOnce(&T) -> U) -> Option<U> {
        Some(looked(&self.erased.try_get_value()?, look))
    }

    /// The value.
    pub fn get_value(self) -> T
    where
        T: Clone,
    {
        self.with_value(T::clone)
    }

    /// The value; `None` once the page is gone.
    pub fn try_get_value(self) -> Option<T>
    where
        T: Clone,
    {
        self.try_with_value(T::clone)
    }

    /// Changes the value.
    pub fn update_value(self, change: impl FnOnce(&mut T)) {
        changed(&self.erased.get_value(), change);
    }

    /// Changes the value; `None` once the page is gone.
    pub fn try_update_value<U>(self, change: impl FnOnce(&mut T) -> U) -> Option<U> {
        Some(changed(&self.erased.try_get_value()?, change))
    }

    /// Keeps another value.
    pub fn set_value(self, value: T) {
        drop(changed(&self.erased.get_value(), |kept| std::mem::replace(kept, value)));
    }

    /// Keeps another value, unless the page is gone.
    pub fn try_set_value(self, value: T) {
        self.try_update_value(|kept| std::mem::replace(kept, value));
    }
}

/// The same for what stays on the thread that made it, as the browser's own objects do.
pub struct LocalValue<T> {
    erased: plain::StoredValue<Rc<dyn Any>, LocalStorage>,
    of: PhantomData<fn() -> T>,
}

handle!(LocalValue);

impl<T: 'static> LocalValue<T> {
    /// Keeps a value.
    pub fn new(value: T) -> Self {
        Self {
            erased: plain::StoredValue::new_local(Rc::new(RefCell::new(value))),
            of: PhantomData,
        }
    }

    /// What `look` finds in the value.
    pub fn with_value<U>(self, look: impl FnOnce(&T) -> U) -> U {
        look(&local_cell(&*self.erased.get_value()).borrow())
    }

    /// The same; `None` once the page is gone.
    pub fn try_with_value<U>(self, look: impl FnOnce(&T) -> U) -> Option<U> {
        Some(look(&local_cell(&*self.erased.try_get_value()?).borrow()))
    }

    /// The value.
    pub fn get_value(self) -> T
    where
        T: Clone,
    {
        self.with_value(T::clone)
    }

    /// Changes the value.
    pub fn update_value(self, change: impl FnOnce(&mut T)) {
        change(&mut local_cell(&*self.erased.get_value()).borrow_mut());
    }

    /// Changes the value; `None` once the page is gone.
    pub fn try_update_value<U>(self, change: impl FnOnce(&mut T) -> U) -> Option<U> {
        Some(change(&mut local_cell(&*self.erased.try_get_value()?).borrow_mut()))
    }

    /// Keeps another value, unless the page is gone.
    pub fn try_set_value(self, value: T) {
        self.try_update_value(|kept| std::mem::replace(kept, value));
    }

    /// Keeps another value.
    pub fn set_value(self, value: T) {
        drop(local_cell(&*self.erased.get_value()).replace(value));
    }
}

fn local_cell<T: 'static>(erased: &dyn Any) -> &RefCell<T> {
    match erased.downcast_ref() {
        Some(cell) => cell,
        None => unreachable!("a handle has the type of its value"),
    }
}

/// Something that is done, and anew whenever what it reads changes.
#[derive(Debug)]
pub struct Effect;

impl Effect {
    /// Does `run`, which is given what it gave the last time.
    pub fn new<T: 'static>(mut run: impl FnMut(Option<T>) -> T + 'static) -> Self {
        let mut before = None;
        effect(Box::new(move || before = Some(run(before.take()))));
        Self
    }
}

fn effect(mut run: Box<dyn FnMut()>) {
    plain::Effect::new(move |_: Option<()>| run());
}

/// What a future makes, which is made anew whenever what was read to make it changes. The value before stays until the next is
/// there.
pub struct Loaded<T>(RwSignal<Option<T>>);

handle!(Loaded);

impl<T: Send + Sync + 'static> Loaded<T> {
    /// `make` reads what it follows before its future begins.
    pub fn new<F: Future<Output = T> + 'static>(make: impl Fn() -> F + 'static) -> Self {
        let found = RwSignal::new(None);
        let turn = StoredValue::new(0_u32);
        Effect::new(move |_| {
            let future = make();
            turn.update_value(|turn| *turn += 1);
            let own = turn.get_value();
            let wait: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                let value = future.await;
                // One that was asked for later counts, even if it came sooner.
                if turn.try_get_value() == Some(own) {
                    found.try_set(Some(value));
                }
            });
            spawn_local(wait);
        });
        Self(found)
    }

    /// The value, which is followed; `None` as long as there is none.
    pub fn get(self) -> Option<T>
    where
        T: Clone,
    {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use leptos::prelude::Owner;

    use super::*;

    #[test]
    fn a_memo_is_worked_out_anew_when_what_it_reads_changes_and_tells_of_other_values_only() {
        let owner = Owner::new();
        owner.set();
        let number = RwSignal::new(4_u32);
        let half = Memo::new(move |before: Option<&(u32, u32)>| {
            let turns = before.map_or(0, |before| before.1);
            let half = number.get() / 2;
            before
                .copied()
                .filter(|before| before.0 == half)
                .unwrap_or((half, turns + 1))
        });
        let said = Memo::new(move |before: Option<&String>| {
            format!("{}{};", before.map_or("", String::as_str), half.with(|half| half.0))
        });
        assert_eq!(said.get(), "2;");
        number.set(5);
        assert_eq!((said.get(), half.get()), ("2;".to_owned(), (2, 1)));
        number.update(|number| *number = 6);
        assert_eq!(
            (said.get_untracked(), half.get_untracked()),
            ("2;3;".to_owned(), (3, 2))
        );
    }

    #[test]
    fn a_memo_without_comparison_always_tells() {
        let owner = Owner::new();
        owner.set();
        let number = RwSignal::new(0_u8);
        let same = Memo::new_with_compare(move |_| _ = number.get(), |_, _| true);
        let turns = Memo::new(move |before: Option<&u8>| {
            same.get();
            before.map_or(0, |before| before + 1)
        });
        assert_eq!(turns.get(), 0);
        number.set(1);
        assert_eq!(turns.get(), 1);
    }

    #[test]
    fn values_are_kept_changed_and_gone_with_their_page() {
        let owner = Owner::new();
        owner.set();
        let (signal, stored, local) = (
            RwSignal::new(vec![1]),
            StoredValue::new("a".to_owned()),
            LocalValue::new(Rc::new(1)),
        );
        assert_eq!(
            signal.try_update(|signal| std::mem::replace(signal, vec![2])),
            Some(vec![1])
        );
        assert_eq!(stored.try_update_value(|stored| stored.pop()), Some(Some('a')));
        stored.set_value("b".to_owned());
        local.set_value(Rc::new(2));
        assert_eq!(
            (signal.get_untracked(), stored.get_value(), *local.get_value()),
            (vec![2], "b".to_owned(), 2)
        );
        let doubled = Signal::derive(move || signal.with(|signal| signal[0] * 2));
        assert_eq!((doubled.get(), Signal::from(signal).with(Vec::len)), (4, 1));
        drop(owner);
        signal.try_set(vec![3]);
        stored.try_set_value("c".to_owned());
        assert_eq!((signal.try_get_untracked(), stored.try_get_value()), (None, None));
        assert_eq!(
            (local.try_with_value(|_| ()), local.try_update_value(|_| ())),
            (None, None)
        );
    }
}
