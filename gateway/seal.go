package gateway

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"sync/atomic"

	"shardstream/stream"
)

// Iterators and page tokens are sealed: AES-256-GCM with the cluster's token
// key, so that any gateway opens them and nobody else makes them.
//
//	off size
//	  0    8  00 00 00 00 00 00 00 01, as AWS's iterators begin
//	  8   12  nonce, random
//	 20    n  ciphertext, padded so that everything behind byte 8 is a
//	          multiple of 16 bytes
//	        16  tag
//
// The whole is base64. What is sealed begins with its length (uint16), and the
// purpose is authenticated with it, so that a page token is no iterator.
const (
	sealHeader   = 8
	sealOverhead = 12 + 16
	sealAlign    = 16
)

var sealMark = [sealHeader]byte{7: 1}

// sealer seals with the key that the metadata names.
type sealer struct {
	cached atomic.Pointer[keyedAEAD]
}

type keyedAEAD struct {
	key  []byte
	aead cipher.AEAD
}

func (s *sealer) aead(key []byte) (cipher.AEAD, error) {
	if k := s.cached.Load(); k != nil && bytes.Equal(k.key, key) {
		return k.aead, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, stream.Errorf(stream.Internal, "gateway.seal", "token key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, stream.Errorf(stream.Internal, "gateway.seal", "%w", err)
	}
	s.cached.Store(&keyedAEAD{bytes.Clone(key), aead})
	return aead, nil
}

// seal gives the sealed form of plain, which is at most 65,535 bytes long.
func (s *sealer) seal(key []byte, purpose string, plain []byte) (string, error) {
	aead, err := s.aead(key)
	if err != nil {
		return "", err
	}
	size := 2 + len(plain)
	if rest := (size + sealOverhead) % sealAlign; rest != 0 {
		size += sealAlign - rest
	}
	padded := make([]byte, size)
	binary.BigEndian.PutUint16(padded, uint16(len(plain)))
	copy(padded[2:], plain)
	sealed := make([]byte, sealHeader, sealHeader+size+sealOverhead)
	copy(sealed, sealMark[:])
	return base64.StdEncoding.EncodeToString(aead.Seal(sealed, nil, padded, []byte(purpose))), nil
}

// open gives what was sealed for that purpose, ok false for anything else. It
// fails only when the key is unusable.
func (s *sealer) open(key []byte, purpose, text string) (plain []byte, ok bool, err error) {
	aead, err := s.aead(key)
	if err != nil {
		return nil, false, err
	}
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sealed) < sealHeader+sealOverhead || !bytes.Equal(sealed[:sealHeader], sealMark[:]) {
		return nil, false, nil
	}
	padded, err := aead.Open(nil, nil, sealed[sealHeader:], []byte(purpose))
	if err != nil || len(padded) < 2 {
		return nil, false, nil
	}
	n := int(binary.BigEndian.Uint16(padded))
	if n > len(padded)-2 {
		return nil, false, nil
	}
	return padded[2 : 2+n], true, nil
}
