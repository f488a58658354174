package stream

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// wideGCM is AES-GCM behind nonces of 24 bytes; the gateway's AEAD has its own
// tests.
func wideGCM(t interface{ Fatal(...any) }, key byte) cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, encryptedNonce)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func buildEncrypted(aead cipher.AEAD, shard ShardID, key uint32, records []Record) Batch {
	b := NewEncryptedBatch(nil, shard, id(1), id(2), 3, key, len(records))
	for _, r := range records {
		b = b.AppendRecord(r)
	}
	return b.Encrypt(aead, len(records))
}

func TestEncryptedBatchSurvives(t *testing.T) {
	aead := wideGCM(t, 7)
	rapid.Check(t, func(t *rapid.T) {
		shard := ShardID{StreamID(rapid.Uint64().Draw(t, "stream")), rapid.Uint32().Draw(t, "number")}
		records := rapid.SliceOfN(anyRecord(), 1, 6).Draw(t, "records")
		key := rapid.Uint32Min(1).Draw(t, "key")
		plain, b := build(shard, records), buildEncrypted(aead, shard, key, records)
		if got, err := CheckUnstamped(b); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("unstamped: %v", err)
		}
		if len(b) != len(plain)+EncryptedSize(len(records)) || b.RecordBytes() != plain.RecordBytes() {
			t.Fatalf("%d bytes, %d of records; %d bytes, %d of records in the clear", len(b), b.RecordBytes(), len(plain), plain.RecordBytes())
		}
		if !slices.Equal(slices.Collect(b.Ordinals()), slices.Collect(plain.Ordinals())) {
			t.Fatal("other ordinals")
		}
		// What the leader does to it does not matter to the records.
		epoch, base, arrival := Epoch(rapid.Uint32().Draw(t, "epoch")), Offset(rapid.Uint64Range(0, 1<<62).Draw(t, "base")), rapid.Int64().Draw(t, "arrival")
		b.Stamp(epoch, base, arrival)
		plain.Stamp(epoch, base, arrival)
		stored := slices.Clone(b)
		checked, err := CheckBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		got, err := checked.Decrypt(slices.Clone(before), aead)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, stored) {
			t.Fatal("decrypting changed the stored batch")
		}
		if got.Encrypted() || got.DataKey() != key || got.Base() != base || got.Arrival() != arrival || got.Len() != len(plain) || got.RequestID() != id(1) {
			t.Fatalf("header: %x", []byte(got[:BatchHeaderSize]))
		}
		if !bytes.Equal(got[BatchHeaderSize:], plain[BatchHeaderSize:]) {
			t.Fatal("other records")
		}
		if _, err := CheckUnstamped(got); err == nil {
			t.Fatal("a decrypted batch would be stored")
		}
	})
}

// TestNothingOfAnEncryptedBatchCanChange: but what the leader stamps.
func TestNothingOfAnEncryptedBatchCanChange(t *testing.T) {
	aead := wideGCM(t, 7)
	b := buildEncrypted(aead, ShardID{1, 2}, 5, []Record{{PartitionKey: []byte("key"), Data: []byte("secret"), Ordinal: 4}, {Data: []byte{0}, ExplicitHash: true}})
	b.Stamp(7, 1000, 1777320018123)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := CheckBatch(b); !errors.Is(err, Corrupt) {
				t.Errorf("byte %d, bit %d: %v", i, bit, err)
			}
			// With a checksum that fits, as somebody would make it who can write.
			forged := slices.Clone(b)
			forged.Stamp(forged.Epoch(), forged.Base(), forged.Arrival())
			checked, err := CheckBatch(forged)
			if err == nil && checked.Encrypted() {
				_, err = checked.Decrypt(nil, aead)
			}
			if stamped := i >= 8 && i < 12 || i >= 28 && i < 48; (err == nil) != stamped {
				t.Errorf("byte %d, bit %d, forged: %v", i, bit, err)
			}
			b[i] ^= 1 << bit
		}
	}
	if _, err := b.Decrypt(nil, aead); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Decrypt(nil, wideGCM(t, 8)); !errors.Is(err, Corrupt) {
		t.Errorf("another key: %v", err)
	}
	if bytes.Contains(b, []byte("secret")) || bytes.Contains(b, []byte("key")) {
		t.Error("it is not encrypted")
	}
}

func TestBadEncryptedBatchesAreFound(t *testing.T) {
	aead := wideGCM(t, 7)
	good := func() Batch {
		return buildEncrypted(aead, ShardID{1, 2}, 5, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}, {}})
	}
	length := func(b Batch) Batch { binary.LittleEndian.PutUint32(b[4:], uint32(len(b))); return b }
	for name, spoil := range map[string]func(Batch) Batch{
		"unknown flags":     func(b Batch) Batch { b[13] |= 2; return b },
		"no data key":       func(b Batch) Batch { binary.LittleEndian.PutUint32(b[52:], 0); return b },
		"only a data key":   func(b Batch) Batch { b[13] = 0; return b },
		"no records":        func(b Batch) Batch { binary.LittleEndian.PutUint32(b[48:], 0); return b },
		"too many counted":  func(b Batch) Batch { binary.LittleEndian.PutUint32(b[48:], 4); return b },
		"hugely many":       func(b Batch) Batch { binary.LittleEndian.PutUint32(b[48:], 1<<32-1); return b },
		"one record's size": func(b Batch) Batch { return length(b[:BatchHeaderSize+EncryptedSize(2)+2*RecordHeaderSize-1]) },
		"only the header":   func(b Batch) Batch { return length(b[:BatchHeaderSize]) },
	} {
		b := spoil(good())
		if _, err := CheckUnstamped(b); !errors.Is(err, Invalid) {
			t.Errorf("%s, unstamped: %v", name, err)
		}
		b.Stamp(1, 0, 0)
		if _, err := CheckBatch(b); !errors.Is(err, Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
