package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"

	"shardstream/gateway/kinesis"
	"shardstream/stream"
)

func fuzzCall(f *testing.F) (*call, *metadata) {
	e := newEnv(f)
	if err := e.g.Ready(f.Context()); err != nil {
		f.Fatal(err)
	}
	return &call{g: e.g, parent: f.Context()}, e.g.meta.load()
}

// FuzzIteratorText: only what was sealed opens, and whatever else comes as an
// iterator or a page token is answered as a bad one, never as a fault.
func FuzzIteratorText(f *testing.F) {
	c, meta := fuzzCall(f)
	good, failure := c.sealIterator(meta, iterator{shard: stream.ShardID{Stream: 1, Number: 2}, offset: 3, name: "s"})
	if failure != nil {
		f.Fatal(failure)
	}
	token, failure := c.sealToken(meta, tokenShards, shardsToken{Stream: 1, Name: "s"})
	if failure != nil {
		f.Fatal(failure)
	}
	for _, s := range []string{"", `"`, `""`, good, `"` + good + `"`, good[:len(good)-4], good + "AAAA", token, "AAAAAAAAAAE=", "AAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		i, failure := c.openIterator(meta, text)
		if failure == nil {
			// The text may differ in padding bits that base64 ignores.
			if i.shard != (stream.ShardID{Stream: 1, Number: 2}) || i.offset != 3 || i.name != "s" {
				t.Fatalf("%q opens as %+v", text, i)
			}
		} else if failure.Code != kinesis.InvalidIterator().Code {
			t.Fatalf("%q: %v", text, failure)
		}
		var content shardsToken
		if failure := c.openToken(meta, tokenShards, text, &content); failure == nil {
			if content.Stream != 1 || content.Name != "s" {
				t.Fatalf("%q opens as %+v", text, content)
			}
		} else if failure.Code != kinesis.InvalidNextToken().Code {
			t.Fatalf("%q: %v", text, failure)
		}
	})
}

// FuzzIteratorContent: what is inside an iterator is read back as it was
// written, and bytes that were sealed by a gateway of another version are read
// or refused.
func FuzzIteratorContent(f *testing.F) {
	f.Add([]byte{}, uint64(0), uint32(0), uint64(0), "s")
	f.Add(make([]byte, iteratorFixed), uint64(1)<<63, ^uint32(0), ^uint64(0), "")
	f.Add(make([]byte, iteratorFixed+1), uint64(7), uint32(1), uint64(9), "name")
	f.Fuzz(func(t *testing.T, raw []byte, id uint64, shard uint32, offset uint64, name string) {
		if i, ok := parseIterator(raw); ok && !bytes.Equal(i.append(nil), raw) {
			t.Fatalf("%x reads as %+v", raw, i)
		}
		want := iterator{shard: stream.ShardID{Stream: stream.StreamID(id), Number: shard}, offset: stream.Offset(offset), issuedMs: int64(id), name: name}
		got, ok := parseIterator(want.append(nil))
		if ok != (name != "") || ok && got != want {
			t.Fatalf("%+v, not %+v", got, want)
		}
	})
}

// FuzzSealer: what is sealed opens for its purpose only, and no changed byte of
// it does.
func FuzzSealer(f *testing.F) {
	f.Add([]byte("plain"), uint(3), byte(1))
	f.Add([]byte{}, uint(0), byte(0x80))
	f.Fuzz(func(t *testing.T, plain []byte, at uint, flip byte) {
		if len(plain) > 1<<15 {
			return
		}
		var s sealer
		key := bytes.Repeat([]byte{7}, 32)
		text, err := s.seal(key, "a", plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := s.open(key, "a", text); err != nil || !ok || !bytes.Equal(got, plain) {
			t.Fatalf("opens as %x, %v, %v", got, ok, err)
		}
		if _, ok, _ := s.open(key, "b", text); ok {
			t.Fatal("opens for another purpose")
		}
		if _, ok, _ := s.open(bytes.Repeat([]byte{8}, 32), "a", text); ok {
			t.Fatal("opens with another key")
		}
		changed := []byte(text)
		changed[at%uint(len(changed))] ^= flip
		if got, ok, err := s.open(key, "a", string(changed)); err != nil || ok && !bytes.Equal(got, plain) {
			t.Fatalf("changed, it opens as %x, %v", got, err)
		}
	})
}

// readers are ways in which bytes come.
var readers = []func(io.Reader) io.Reader{
	func(r io.Reader) io.Reader { return r },
	iotest.OneByteReader,
	iotest.HalfReader,
	iotest.DataErrReader,
}

// FuzzReadBody: whatever the body, its declared length and the pace in which it
// comes, the reader gives exactly the bytes, or refuses them for their length or
// for missing ones, and holds no budget afterwards.
func FuzzReadBody(f *testing.F) {
	f.Add([]byte("{}"), int64(2), uint8(0), uint16(100))
	f.Add([]byte{}, int64(-1), uint8(1), uint16(0))
	f.Add(bytes.Repeat([]byte("x"), 101), int64(-1), uint8(2), uint16(100))
	f.Add(bytes.Repeat([]byte("x"), 99), int64(100), uint8(3), uint16(100))
	f.Add(bytes.Repeat([]byte("x"), 20<<10), int64(-1), uint8(0), uint16(20<<10))
	f.Add(bytes.Repeat([]byte("x"), 16<<10), int64(-1), uint8(3), uint16(16<<10))
	f.Fuzz(func(t *testing.T, content []byte, length int64, how uint8, limit uint16) {
		cfg := Config{MaxBody: max(1, int(limit))}.withDefaults()
		g := &Gateway{cfg: cfg, budget: newBudget(cfg.MaxInFlight)}
		// As net/http gives it: no more than was declared.
		if length >= 0 && int64(len(content)) > length {
			content = content[:length]
		}
		if length < 0 {
			length = -1
		}
		r := httptest.NewRequest(http.MethodPost, "/", readers[int(how)%len(readers)](bytes.NewReader(content)))
		r.ContentLength = length
		var b body
		err := g.readBody(t.Context(), httpBody{r.Body, http.NewResponseController(httptest.NewRecorder())}, r.ContentLength, &b)
		switch {
		case length > int64(cfg.MaxBody), len(content) > cfg.MaxBody:
			if !errors.Is(err, errBodyTooLarge) {
				t.Fatalf("%d bytes of %d, limit %d: %v", len(content), length, cfg.MaxBody, err)
			}
		case int64(len(content)) < length:
			if err == nil {
				t.Fatalf("%d bytes of %d are taken for the whole", len(content), length)
			}
		case err != nil || !bytes.Equal(b.bytes, content):
			t.Fatalf("%d bytes of %d read as %d: %v", len(content), length, len(b.bytes), err)
		}
		g.releaseBody(&b)
		if n := g.budget.inUse(); n != 0 {
			t.Fatalf("%d bytes of the budget are not given back", n)
		}
	})
}
