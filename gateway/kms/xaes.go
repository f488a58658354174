package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// KeySize is the size of all keys here, bytes.
const KeySize = 32

// Sizes of XAES-256-GCM, bytes.
const (
	nonceSize = 24
	tagSize   = 16
)

// xaes is XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM with a key derived
// from ours and the first half of the nonce. Plain AES-GCM with random nonces
// is good for 2^32 messages of a key, which a busy stream writes in a few days;
// this is good for 2^80.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC's first subkey
}

// NewXAES makes the AEAD of a key of KeySize bytes. It may be used by many
// goroutines at once.
func NewXAES(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a key of %d bytes, not %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	// Doubled in GF(2^128).
	carry := byte(0)
	for i := len(x.k1) - 1; i >= 0; i-- {
		x.k1[i], carry = x.k1[i]<<1|carry, x.k1[i]>>7
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x, nil
}

// derive gives the AEAD for a nonce; it takes the nonce's last 12 bytes.
func (x *xaes) derive(nonce []byte) cipher.AEAD {
	if len(nonce) != nonceSize {
		panic("kms: a nonce of another size")
	}
	key := make([]byte, KeySize)
	for i := range 2 {
		half := key[i*aes.BlockSize:][:aes.BlockSize]
		copy(half, []byte{0, byte(i + 1), 'X', 0})
		copy(half[4:], nonce[:12])
		subtle.XORBytes(half, half, x.k1[:])
		x.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the size is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (*xaes) NonceSize() int { return nonceSize }
func (*xaes) Overhead() int  { return tagSize }

func (x *xaes) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	return x.derive(nonce).Seal(dst, nonce[12:], plaintext, additionalData)
}

func (x *xaes) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	return x.derive(nonce).Open(dst, nonce[12:], ciphertext, additionalData)
}
