// Package proto is the folder of Shardstream's wire and disk contracts; the
// generated Go lives in shardstream/v1. It imports nothing of ours.
package proto
