package kms

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

// The vectors are those of c2sp.org/XAES-256-GCM.
func TestXAESVectors(t *testing.T) {
	for _, c := range []struct {
		key       byte
		aad, want string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		x, err := NewXAES(bytes.Repeat([]byte{c.key}, KeySize))
		if err != nil {
			t.Fatal(err)
		}
		nonce, plain := []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM")
		sealed := x.Seal(nil, nonce, plain, []byte(c.aad))
		if got := hex.EncodeToString(sealed); got != c.want {
			t.Errorf("key %x: got %s, want %s", c.key, got, c.want)
		}
		if got, err := x.Open(nil, nonce, sealed, []byte(c.aad)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("key %x: got %q, %v", c.key, got, err)
		}
	}
	if _, err := NewXAES(make([]byte, 16)); err == nil {
		t.Error("a short key is taken")
	}
}

// TestXAESAccumulated is the text's randomised test of 10,000 messages.
func TestXAESAccumulated(t *testing.T) {
	random, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := random.Read(b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for range 10_000 {
		key, nonce := read(KeySize), read(nonceSize)
		plain := read(int(read(1)[0]))
		aad := read(int(read(1)[0]))
		x, err := NewXAES(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed := x.Seal(nil, nonce, plain, aad)
		if got, err := x.Open(nil, nonce, sealed, aad); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("got %x, %v", got, err)
		}
		sum.Write(sealed)
	}
	got := make([]byte, 32)
	if _, err := sum.Read(got); err != nil {
		t.Fatal(err)
	}
	if want := "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"; hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}
