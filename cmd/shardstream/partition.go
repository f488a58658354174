package main

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"strconv"
	"unicode/utf8"
)

// keyFlags say how put finds a line's partition key.
type keyFlags struct {
	PartitionKey string         `aliases:"key" placeholder:"KEY" xor:"key" help:"One key for all lines: they stay in order, in one shard."`
	KeyField     int            `placeholder:"N" xor:"key" help:"The key is the Nth field of a line, from 1."`
	KeySeparator string         `placeholder:"TEXT" help:"What separates fields; runs of white space if empty."`
	KeyRegexp    *regexp.Regexp `placeholder:"RE" xor:"key" help:"The key is what the first group of this expression matches (all of it, if it has no group)."`
	KeyRandom    bool           `xor:"key" help:"A random key for each line: the most even spread, and no order."`
}

// maxPartitionKey is Kinesis's limit, in characters.
const maxPartitionKey = 256

// of gives the partition key of a line. A line without the field or without a
// match, or whose key is longer than Kinesis takes, gets the hash of itself or
// of that key: the choice depends on the line alone, so equal keys stay equal.
func (f *keyFlags) of(line []byte) string {
	var key []byte
	switch {
	case f.PartitionKey != "":
		return f.PartitionKey
	case f.KeyRandom:
		return strconv.FormatUint(rand.Uint64(), 16)
	case f.KeyField > 0:
		key = field(line, f.KeySeparator, f.KeyField)
	case f.KeyRegexp != nil:
		if m := f.KeyRegexp.FindSubmatch(line); m != nil {
			key = m[min(1, len(m)-1)]
		}
	}
	switch {
	case len(key) == 0:
		return hashName(line)
	case !utf8.Valid(key) || utf8.RuneCount(key) > maxPartitionKey:
		return hashName(key)
	}
	return string(key)
}

// hashName gives 16 hexadecimal digits that stand for b.
func hashName(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:8])
}

// field gives the nth field of the line, from 1; nil if it has fewer.
func field(line []byte, separator string, n int) []byte {
	if separator == "" {
		fields := bytes.Fields(line)
		if n > len(fields) {
			return nil
		}
		return fields[n-1]
	}
	for ; n > 1; n-- {
		_, after, found := bytes.Cut(line, []byte(separator))
		if !found {
			return nil
		}
		line = after
	}
	before, _, _ := bytes.Cut(line, []byte(separator))
	return before
}

// lane gives the one of n senders that all records of a key go through.
func lane(key string, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % uint32(n))
}
