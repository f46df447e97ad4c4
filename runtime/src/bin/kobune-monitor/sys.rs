//! What the monitor does that the compiler cannot check.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use rustix::process::Signal;

/// A descriptor that the launcher left open for this program.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: the launcher names descriptors that it left open for this program alone;
    // nothing else in this process owns them, and 0 to 2 belong to the standard library.
    (number > 2).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// A signal by number, real-time signals included: images name them as stop signals.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    // SAFETY: signals are only sent, never handled here, and sending none of them is
    // unsound; the kernel refuses numbers above 64, and the range is checked.
    (1..=64)
        .contains(&number)
        .then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// What every monitor needs as long as it lives lies side by side in memory that belongs to the
/// program: an allocator gives each size a page of its own, and there is a monitor for each
/// container. What does not fit, as that of those who attach, is the system's.
#[global_allocator]
static ARENA: Arena = Arena {
    memory: UnsafeCell::new(Memory([MaybeUninit::uninit(); SIZE])),
    taken: AtomicU32::new(0),
};

/// The log's buffers and pages for all else; those that are not written to cost nothing.
const SIZE: usize = 64 << 10;
const PAGE: usize = 4 << 10;

struct Arena {
    memory: UnsafeCell<Memory>,
    /// Bytes from the start, in the lower half, and whole pages from the end.
    taken: AtomicU32,
}

#[repr(align(16))]
struct Memory(#[expect(dead_code, reason = "used by its address")] [MaybeUninit<u8>; SIZE]);

// SAFETY: `taken` is changed by compare-and-swap, so that no byte is given out twice.
unsafe impl Sync for Arena {}

/// Where `layout` is put when so much is taken, and what is taken then: buffers at the end, and all
/// else at the start, side by side.
fn place(taken: u32, layout: Layout) -> Option<(usize, u32)> {
    let (bytes, pages) = ((taken & 0xffff) as usize, (taken >> 16) as usize);
    let (offset, bytes, pages) = if layout.size() < PAGE {
        let offset = bytes.checked_next_multiple_of(layout.align())?;
        (offset, offset + layout.size(), pages)
    } else {
        let pages = pages + layout.size().div_ceil(PAGE);
        (SIZE.checked_sub(pages * PAGE)?, bytes, pages)
    };
    let fits = layout.align() <= align_of::<Memory>() && bytes + pages * PAGE < SIZE;
    let taken = u32::try_from(pages << 16 | bytes).ok()?;
    fits.then_some((offset, taken))
}

impl Arena {
    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// The offset of a free place, which is now taken.
    fn take(&self, layout: Layout) -> Option<usize> {
        let taken = self.taken.fetch_update(Relaxed, Relaxed, |taken| {
            place(taken, layout).map(|(_, taken)| taken)
        });
        place(taken.ok()?, layout).map(|(offset, _)| offset)
    }

    /// The offset of what was given out, if it was.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = pointer.addr().checked_sub(self.base().addr())?;
        (offset < SIZE).then_some(offset)
    }
}

// SAFETY: a place in the arena is free, large and aligned enough; all else is the system's.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            // SAFETY: the offset is within the arena.
            Some(offset) => unsafe { self.base().add(offset) },
            // SAFETY: the caller keeps to the same contract.
            None => unsafe { System.alloc(layout) },
        }
    }

    /// The last small place is free again; others stay taken.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: what is not in the arena came from the system.
            return unsafe { System.dealloc(pointer, layout) };
        };
        let _ = self.taken.fetch_update(Relaxed, Relaxed, |taken| {
            let last = layout.size() < PAGE && (taken & 0xffff) as usize == offset + layout.size();
            last.then(|| taken - u32::try_from(layout.size()).unwrap_or(0))
        });
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.offset(pointer).is_none() {
            // SAFETY: what is not in the arena came from the system.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        // SAFETY: the caller's alignment is a valid one, and `size` no more than it may be.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: `size` is not zero, says the caller's contract.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both places are that large, and the new one is no part of the old.
            unsafe { ptr::copy_nonoverlapping(pointer, new, layout.size().min(size)) };
            // SAFETY: it is the caller's, who uses the new one from here on.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn small_things_come_from_the_start_and_buffers_from_the_end_until_they_meet() {
        let (offset, taken) = place(0, layout(5, 1)).unwrap();
        assert_eq!((offset, taken), (0, 5));
        let (offset, taken) = place(taken, layout(8, 8)).unwrap();
        assert_eq!((offset, taken), (8, 16));
        let (offset, taken) = place(taken, layout(PAGE + 1, 1)).unwrap();
        assert_eq!((offset, taken), (SIZE - 2 * PAGE, 2 << 16 | 16));
        assert_eq!(place(taken, layout(SIZE - 2 * PAGE, 1)), None);
        let (offset, taken) = place(taken, layout(SIZE - 3 * PAGE, 1)).unwrap();
        assert_eq!((offset, taken), (PAGE, 15 << 16 | 16));
        assert_eq!(place(taken, layout(PAGE - 16, 1)), None);
        assert_eq!(place(taken, layout(1, PAGE)), None);
    }

    #[test]
    fn what_grows_keeps_its_content_wherever_it_lies() {
        let mut text = Vec::new();
        for number in 0..SIZE {
            text.push(u8::try_from(number % 251).unwrap());
        }
        let other = vec![1_u8; 100];
        assert!(
            text.iter()
                .zip(0..)
                .all(|(byte, at)| usize::from(*byte) == at % 251)
        );
        assert_eq!(other, [1; 100]);
    }
}
