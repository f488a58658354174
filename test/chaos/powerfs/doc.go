// Package powerfs is a FUSE file system that loses power, and a disk that is
// slow, hung, full, lying or damaged, for processes that know nothing of it.
//
// A mount passes through to a backing directory: what is on the platter. What
// programs write is visible to all at once, and is held in memory until it is
// synced:
//
//   - bytes and size of a file reach the platter with its fsync, fdatasync, or
//     a write through O_SYNC or O_DSYNC;
//   - creations, renames and removals in a directory reach it with the fsync of
//     that directory, and with nothing else. A rename across directories does
//     with the fsync of either.
//
// PowerLoss is the instant at which all that is in memory is gone. With Torn a
// seeded part of it has reached the platter before. The rules are those of
// recordlog.MemFS, which the record log is tested with, block for block: of
// each file either size; each 4 KiB block that was written new, old, or new up
// to one of its 512-byte sectors and old behind; of each directory a first part
// of the changes, a rename within it whole. A rename across directories may
// then be found in both or in none. That is harder than ext4, and allowed.
//
// After PowerLoss everything fails with EIO, what was open for ever, the rest
// until PowerOn. So the crash of a machine is: PowerLoss, kill -9 of the
// processes, PowerOn, start.
//
// A sync that fails (Fail) loses what it should have written: readers may see
// it as long as the kernel has it cached, and the next sync succeeds without it.
//
// The kernel's page cache works as on any file system, so MAP_SHARED, O_DIRECT
// and POSIX_FADV_DONTNEED do what programs expect; a read that the cache
// answers meets no fault. Flock is the kernel's. There are no links, device
// files or extended attributes. Times and modes are not subject to power loss.
// What is never synced stays in memory.
//
// Mount serves in this process. A process must not map files of a mount that it
// serves itself: the fault blocks the thread that should answer it. Start runs
// a mount in a process of its own, which a hang can't hang, and Client orders
// it. Killing that process is a power loss too, without Torn, but for the sync
// of a directory that it was in the midst of.
package powerfs
