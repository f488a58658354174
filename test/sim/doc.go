// Package sim runs the real leader, follower and election code of a small
// cluster in one goroutine, on a simulated network, disk and clock, by a seed.
// After every step it checks the invariants of broker/replica/DESIGN.md. The
// metadata is the real state machine under an ideal raft log: each node learns
// of its commands late.
//
// It is not a test of raft, of gRPC or of the record log's files.
package sim
