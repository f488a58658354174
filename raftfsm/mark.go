package raftfsm

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
)

// marks is what the log and the stable store are known to have made durable.
type marks struct {
	first  uint64                  // the log begins with this index or a lower one
	last   uint64                  // index of the last entry, 0 for none
	term   uint64                  // its term
	stable [len(stableKeys)]uint64 // how often each stable value was set
}

// mark keeps marks in a file of two slots, written in turn, so that a torn
// write leaves the one before:
//
//	slot: magic u32 | generation u64 | first u64 | last u64 | term u64 | 3 × stable u64 | CRC32C u32
//
// All numbers are big-endian. It is written after each change of the store and
// before raft hears of it, so that the store never holds less than the mark
// says; where entries are to be cut, it is written before.
type mark struct {
	marks
	file *os.File
	gen  uint64
}

const (
	markMagic = 0x53484d31 // "SHM1"
	slotStep  = 4096       // bytes from slot to slot: never in one sector or page
	slotSize  = 4 + 8 + 3*8 + 8*len(stableKeys) + 4
)

// openMark opens the file. It is created if there is none and the store is new.
func openMark(path string, isNew bool) (*mark, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && isNew {
		if err := createMark(path); err != nil {
			return nil, err
		}
	} else if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(path, "it is missing")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m := &mark{file: f}
	for i := range int64(2) {
		var slot [slotSize]byte
		if _, err := f.ReadAt(slot[:], i*slotStep); err != nil {
			return nil, errors.Join(damaged(path, "slot %d: %w", i, noEOF(err)), f.Close())
		}
		if got, gen, ok := decodeSlot(slot[:]); ok && gen%2 == uint64(i) && gen > m.gen {
			m.marks, m.gen = got, gen
		}
	}
	if m.gen == 0 {
		return nil, errors.Join(damaged(path, "both slots fail their checksum"), f.Close())
	}
	return m, nil
}

// createMark writes the file under another name first: it is whole or absent.
func createMark(path string) error {
	buf := make([]byte, 2*slotStep)
	copy(buf[slotStep:], encodeSlot(marks{}, 1))
	f, err := os.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(buf)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// set makes the marks durable.
func (m *mark) set(to marks) error {
	gen := m.gen + 1
	if _, err := m.file.WriteAt(encodeSlot(to, gen), int64(gen%2)*slotStep); err != nil {
		return err
	}
	if err := m.file.Sync(); err != nil {
		return err
	}
	m.marks, m.gen = to, gen
	return nil
}

// Close closes the file.
func (m *mark) Close() error { return m.file.Close() }

func encodeSlot(m marks, gen uint64) []byte {
	be := binary.BigEndian
	buf := be.AppendUint32(make([]byte, 0, slotSize), markMagic)
	for _, v := range append([]uint64{gen, m.first, m.last, m.term}, m.stable[:]...) {
		buf = be.AppendUint64(buf, v)
	}
	return be.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

func decodeSlot(buf []byte) (m marks, gen uint64, ok bool) {
	be := binary.BigEndian
	sum := len(buf) - 4
	if be.Uint32(buf) != markMagic || be.Uint32(buf[sum:]) != crc32.Checksum(buf[:sum], castagnoli) {
		return marks{}, 0, false
	}
	m.first, m.last, m.term = be.Uint64(buf[12:]), be.Uint64(buf[20:]), be.Uint64(buf[28:])
	for i := range m.stable {
		m.stable[i] = be.Uint64(buf[36+8*i:])
	}
	return m, be.Uint64(buf[4:]), true
}
