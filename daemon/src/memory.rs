//! Memory that the C library's allocator keeps for itself.
//!
//! Glibc gives each thread that allocates an arena of its own and rarely gives one back: after ten thousand files a third of what the daemon
//! holds would be free memory. So it has few arenas, and what is free goes back to the system when a folder comes to rest.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// Arenas for all threads together.
    const ARENAS: i32 = 4;

    #[allow(unsafe_code)]
    pub fn few_arenas() {
        // SAFETY: takes numbers only; glibc allows it at any time, and ignores what it does not know.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }

    #[allow(unsafe_code)]
    pub fn give_back() {
        // SAFETY: takes a number only, moves nothing that is allocated, and may be called by any thread.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub fn few_arenas() {}
    pub fn give_back() {}
}

/// To be called before the first thread is started: the daemon's threads share a few arenas.
pub fn few_arenas() {
    glibc::few_arenas();
}

/// Gives free memory back to the system. Takes about a millisecond for each ten megabytes; for a thread that may block.
pub fn give_back() {
    glibc::give_back();
}
