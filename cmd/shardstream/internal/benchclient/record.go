package benchclient

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Stamp is what every record of the load carries at the head of its data, to
// be told from all others.
type Stamp struct {
	Run    uint64 // of the whole measurement, random
	Writer uint32
	Key    uint16 // number of the partition key among the writer's
	Seq    uint64 // of the writer's records, from 0
	Nanos  int64  // when it was sent, on the clock of the measuring process
}

// StampSize is the size of a stamp, and so the smallest record, in bytes. It
// is a multiple of 3, so that it is base64 by itself.
const StampSize = 30

const stampBase64 = StampSize / 3 * 4

func (s Stamp) put(dst []byte) {
	var raw [StampSize]byte
	binary.BigEndian.PutUint64(raw[0:], s.Run)
	binary.BigEndian.PutUint32(raw[8:], s.Writer)
	binary.BigEndian.PutUint16(raw[12:], s.Key)
	binary.BigEndian.PutUint64(raw[14:], s.Seq)
	binary.BigEndian.PutUint64(raw[22:], uint64(s.Nanos))
	base64.StdEncoding.Encode(dst[:stampBase64], raw[:])
}

// Format is the form of all records of one measurement: which run, how large,
// for which stream.
type Format struct {
	Run  uint64
	tail []byte // base64 of what follows the stamp
	size int
}

// NewFormat makes a form for records of size bytes, at least StampSize. The
// bytes behind the stamp are random, but the same in all records.
func NewFormat(size int) *Format {
	f := &Format{Run: rand.Uint64(), size: size}
	raw := make([]byte, size-StampSize)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(raw) // never fails
	f.tail = base64.StdEncoding.AppendEncode(nil, raw)
	return f
}

// Size gives the size of a record's data in bytes.
func (f *Format) Size() int { return f.size }

// Read gives the stamp of a record's data in base64. It is false for data that
// is not of this run, and damaged for data that is but has not arrived whole.
func (f *Format) Read(data []byte) (s Stamp, damaged, ok bool) {
	if len(data) < stampBase64 {
		return Stamp{}, false, false
	}
	var raw [StampSize]byte
	if _, err := base64.StdEncoding.Decode(raw[:], data[:stampBase64]); err != nil {
		return Stamp{}, false, false
	}
	s = Stamp{
		Run:    binary.BigEndian.Uint64(raw[0:]),
		Writer: binary.BigEndian.Uint32(raw[8:]),
		Key:    binary.BigEndian.Uint16(raw[12:]),
		Seq:    binary.BigEndian.Uint64(raw[14:]),
		Nanos:  int64(binary.BigEndian.Uint64(raw[22:])),
	}
	return s, !bytes.Equal(data[stampBase64:], f.tail), s.Run == f.Run
}

// PartitionKey gives a writer's key of that number: 14 characters, always.
func PartitionKey(writer uint32, key uint16) string { return fmt.Sprintf("w%05d-k%06d", writer, key) }

const partitionKeySize = 14

// Put is a prebuilt PutRecord or PutRecords, whose records are stamped anew
// for each sending.
type Put struct {
	*Request
	format  *Format
	writer  uint32
	keys    []string
	data    []int // where each record's data stands in the body
	key     []int // where each record's partition key stands
	nextSeq uint64
}

// NewPutRecord builds a PutRecord of one record.
func (t *Target) NewPutRecord(f *Format, streamName string, writer uint32, keys int) *Put {
	p := newPut(f, writer, keys)
	body := fmt.Appendf(nil, `{"StreamName":%q,`, streamName)
	body = append(p.appendRecord(body), '}')
	p.Request = t.NewRequest("PutRecord", body)
	return p
}

// NewPutRecords builds a PutRecords of count records.
func (t *Target) NewPutRecords(f *Format, streamName string, writer uint32, keys, count int) *Put {
	p := newPut(f, writer, keys)
	body := fmt.Appendf(nil, `{"StreamName":%q,"Records":[`, streamName)
	for i := range count {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(p.appendRecord(append(body, '{')), '}')
	}
	p.Request = t.NewRequest("PutRecords", append(body, "]}"...))
	return p
}

func newPut(f *Format, writer uint32, keys int) *Put {
	p := &Put{format: f, writer: writer}
	for k := range keys {
		p.keys = append(p.keys, PartitionKey(writer, uint16(k)))
	}
	return p
}

// appendRecord appends the members of a record whose stamp and key are still to come.
func (p *Put) appendRecord(body []byte) []byte {
	body = append(body, `"Data":"`...)
	p.data = append(p.data, len(body))
	body = append(body, make([]byte, stampBase64)...)
	body = append(body, p.format.tail...)
	body = append(body, `","PartitionKey":"`...)
	p.key = append(p.key, len(body))
	body = append(body, make([]byte, partitionKeySize)...)
	return append(body, '"')
}

// Count gives the number of records in the request.
func (p *Put) Count() int { return len(p.data) }

// Next stamps the request's records, the writer's next, and gives the number
// of the first of them.
func (p *Put) Next(nanos int64) (first uint64) {
	first = p.nextSeq
	body := p.Body()
	for i := range p.data {
		key := uint16(p.nextSeq % uint64(len(p.keys)))
		Stamp{p.format.Run, p.writer, key, p.nextSeq, nanos}.put(body[p.data[i]:])
		copy(body[p.key[i]:], p.keys[key])
		p.nextSeq++
	}
	return first
}
