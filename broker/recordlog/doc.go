// Package recordlog stores the record batches of all shard replicas of one
// node: a node-wide journal that makes them durable with one fdatasync for all
// that is waiting, a file of segments per replica to read them from, a
// checkpoint that lets the journal be reused, and the recovery that puts the
// whole together again after a crash.
//
// It knows nothing of networks, leaders or metadata, and it never decides that
// data is superfluous unless it was told so: what it finds and can't account
// for goes to trash/, and what it has lost it names.
//
// The invariant it keeps: a batch whose Append was answered with nil is read
// back byte for byte until it is trimmed, cut or dropped, whatever crash lies
// between; or, if the disk has damaged it, Read says so (I2, I13, I14, I15).
//
// DESIGN.md tells the format, the rules of recovery, and what they cost.
package recordlog
