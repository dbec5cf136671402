//! How memory that tensors leave behind is kept.

/// Keeps freed memory for the next tensor.
///
/// glibc gives large blocks back to the system when they are freed, and gets them anew, page by page and zeroed, for the next
/// tensor: on small models that is a fifth of the time of training on the processor. Models that do not compute in this process
/// need not call it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn keep_freed() {
    // The largest that glibc takes.
    const LARGE: libc::c_int = 32 << 20;
    // SAFETY: it sets two numbers of the allocator, under the allocator's lock. Where one is refused, nothing changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Other allocators keep it, or cannot be told.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn keep_freed() {}
