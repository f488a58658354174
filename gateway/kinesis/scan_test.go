package kinesis

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

// checkScan holds the invariant of the package: what the quick way takes, the
// exact way takes with the same values. It reports whether the quick way did.
func checkScan(t rapid.TB, s *PutScan, f Format, body []byte, single bool) bool {
	op, scan := PutRecords, s.ScanPutRecords
	if single {
		op, scan = PutRecord, s.ScanPutRecord
	}
	if !scan(f, body) {
		return false
	}
	datas := make([][]byte, len(s.Entries))
	good := true
	for i := range s.Entries {
		prefix := []byte("prefix")
		data, err := s.Entries[i].Data.AppendTo(prefix[:len(prefix):len(prefix)])
		if err != nil {
			good = false
			continue
		}
		if string(data[:6]) != "prefix" || len(data)-6 != s.Entries[i].Data.Len() {
			t.Fatalf("%q: blob %d: %d bytes, said to be %d", body, i, len(data)-6, s.Entries[i].Data.Len())
		}
		datas[i] = data[6:]
	}
	in, err := Decode(op, f, body)
	if !good {
		if err == nil && !bytes.ContainsRune(body, '\\') {
			t.Fatalf("%q: a blob without escapes fails, but the exact way takes it", body)
		}
		return false
	}
	if err == nil {
		err = Validate(in)
	}
	if err != nil {
		t.Fatalf("%q: scanned, but %v", body, err)
	}

	var name, arn, ordering *string
	var entries []PutRecordsRequestEntry
	if single {
		in := in.(*PutRecordInput)
		name, arn, ordering = in.StreamName, in.StreamARN, in.SequenceNumberForOrdering
		entries = []PutRecordsRequestEntry{{Data: in.Data, PartitionKey: in.PartitionKey, ExplicitHashKey: in.ExplicitHashKey}}
	} else {
		in := in.(*PutRecordsInput)
		name, arn, entries = in.StreamName, in.StreamARN, in.Records
	}
	for _, c := range []struct {
		quick string
		exact *string
	}{{s.StreamName, name}, {s.StreamARN, arn}, {s.SequenceNumberForOrdering, ordering}} {
		if c.exact == nil && c.quick != "" || c.exact != nil && *c.exact != c.quick {
			t.Fatalf("%q: request: %q and %v", body, c.quick, c.exact)
		}
	}
	if len(entries) != len(s.Entries) {
		t.Fatalf("%q: %d entries and %d", body, len(s.Entries), len(entries))
	}
	for i, e := range entries {
		q := &s.Entries[i]
		if string(q.PartitionKey) != *e.PartitionKey || !bytes.Equal(datas[i], e.Data) ||
			(q.ExplicitHashKey == nil) != (e.ExplicitHashKey == nil) || e.ExplicitHashKey != nil && *e.ExplicitHashKey != string(q.ExplicitHashKey) {
			t.Fatalf("%q: entry %d: %+v and %+v", body, i, q, e)
		}
	}
	return true
}

// TestScanTakesUsualBodies: the quick way is taken, and not only by bodies of
// our own making.
func TestScanTakesUsualBodies(t *testing.T) {
	type entry struct {
		Data                          []byte
		PartitionKey, ExplicitHashKey string
	}
	type request struct {
		Records                                 []entry `json:",omitempty" cbor:",omitempty"`
		StreamName, StreamARN                   string
		SequenceNumberForOrdering, PartitionKey string `json:",omitempty" cbor:",omitempty"`
		Data                                    []byte `json:",omitempty" cbor:",omitempty"`
	}
	const arn = "arn:aws:kinesis:eu-west-1:000000000000:stream/a"
	many := request{StreamName: "a-Z_.9", StreamARN: arn}
	for i := range 500 {
		many.Records = append(many.Records, entry{bytes.Repeat([]byte{byte(i), 0xff}, i), strings.Repeat("kö<", 1+i%85), fmt.Sprint(i)})
	}
	one := request{StreamName: "a", StreamARN: arn, PartitionKey: "k", Data: []byte("data"), SequenceNumberForOrdering: "49674026002850188218576229259473476449429298564223254594"}
	var s PutScan
	for range 2 {
		for _, r := range []request{many, one} {
			single := r.Records == nil
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			indented, _ := json.MarshalIndent(r, "", "\t")
			for _, body := range [][]byte{text, indented, bytes.ReplaceAll(text, []byte("/"), []byte(`\/`))} {
				if !checkScan(t, &s, JSON, body, single) {
					t.Errorf("not scanned: %.200s", body)
				}
			}
			items, err := cbor.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if !checkScan(t, &s, CBOR, items, single) {
				t.Errorf("not scanned: %.200x", items)
			}
		}
	}
	// Jackson writes maps and lists of indefinite length.
	if !checkScan(t, &s, CBOR, unhex(t, "bf<StreamName><a><Records>9fbf<Data>420102<PartitionKey><k>ffffff"), false) {
		t.Error("indefinite lengths are not scanned")
	}
}

func TestScanRefuses(t *testing.T) {
	var s PutScan
	entry := `{"Data":"","PartitionKey":"a"}`
	for _, body := range []string{
		`{}`, `{"Records":[]}`, `{"Records":null}`, `{"Records":[` + strings.Repeat(entry+",", 500) + entry + `]}`,
		`{"Records":[` + entry + `],"StreamName":"a b"}`, `{"Records":[` + entry + `],"StreamName":null}`, `{"Records":[` + entry + `],"StreamName":""}`,
		`{"Records":[` + entry + `],"StreamARN":"a"}`, `{"Records":[` + entry + `],"Records":[` + entry + `]}`, `{"Records":[` + entry + `]}x`,
		`{"Records":[{"Data":"","PartitionKey":""}]}`, `{"Records":[{"Data":"","PartitionKey":"` + strings.Repeat("a", 257) + `"}]}`,
		`{"Records":[{"Data":""}]}`, `{"Records":[{"PartitionKey":"a"}]}`, `{"Records":[{"Data":"a","PartitionKey":"a"}]}`,
		`{"Records":[{"Data":"","PartitionKey":"a","ExplicitHashKey":"01"}]}`, `{"Records":[{"Data":"","PartitionKey":"a","ExplicitHashKey":"` + strings.Repeat("1", 40) + `"}]}`,
		`{"Records":[{"Data":"","PartitionKey":"a","Other":1}]}`,
		`{"Records":[{"Data":"","PartitionKey":"` + "\xff" + `"}]}`, `{"Records":[{"Data":"","Data":"","PartitionKey":"a"}]}`, "", "x",
	} {
		if s.ScanPutRecords(JSON, []byte(body)) {
			t.Errorf("scanned: %s", body)
		}
	}
	for _, body := range []string{
		`{"Data":"","PartitionKey":"a","SequenceNumberForOrdering":"` + strings.Repeat("1", 130) + `"}`, `{"PartitionKey":"a"}`, `{"Data":"","PartitionKey":"a","Records":[]}`,
	} {
		if s.ScanPutRecord(JSON, []byte(body)) {
			t.Errorf("scanned: %s", body)
		}
	}
	for _, body := range []string{
		"a1<Records>80", "a2<Data>40<PartitionKey>61ff", "a2<Data>40<PartitionKey>60", "a2<Data><a><PartitionKey><a>", "a3<Data>40<PartitionKey><a><StreamName>f6",
		"a2<Data>5f4101ff<PartitionKey><a>", "a2<Data>40<PartitionKey><a>00", "a2<Data>5bffffffffffffffff<PartitionKey><a>", "",
	} {
		if s.ScanPutRecord(CBOR, unhex(t, body)) {
			t.Errorf("scanned: %s", body)
		}
	}
	// Line breaks, which decoders of base64 pass over.
	for _, data := range []string{"\n\n\n\n", "AAAA\r\n\r\n", `AAAA\n\n\n\n`, "AAA\n"} {
		body := []byte(`{"PartitionKey":"a","Data":"` + data + `"}`)
		if s.ScanPutRecord(JSON, body) {
			if _, err := s.Entries[0].Data.AppendTo(nil); err == nil {
				t.Errorf("decoded: %s", body)
			}
		}
	}
}

// bodies draws bodies that a PutRecords or PutRecord might have: mostly right,
// now and then odd in one way or several.
type bodies struct {
	t      *rapid.T
	single bool
	odd    bool // whether anything odd may come
}

// oddly reports true now and then, if anything odd may come.
func (g bodies) oddly() bool { return g.odd && rapid.IntRange(0, 19).Draw(g.t, "odd") == 0 }

func (g bodies) key() string {
	if g.oddly() {
		return rapid.SampledFrom([]string{"", strings.Repeat("a", 257), strings.Repeat("é", 256)}).Draw(g.t, "key")
	}
	return rapid.StringN(1, 20, -1).Draw(g.t, "key")
}

func (g bodies) number() string {
	if g.oddly() {
		return rapid.SampledFrom([]string{"", "00", "-1", strings.Repeat("9", 40), strings.Repeat("9", 130)}).Draw(g.t, "number")
	}
	return rapid.StringMatching(`0|[1-9][0-9]{0,38}`).Draw(g.t, "number")
}

func (g bodies) name() string {
	if g.oddly() {
		return rapid.SampledFrom([]string{"", "a b", strings.Repeat("a", 129)}).Draw(g.t, "name")
	}
	return rapid.StringMatching(`[a-zA-Z0-9_.-]{1,8}`).Draw(g.t, "name")
}

func (g bodies) arn() string {
	if g.oddly() {
		return "arn"
	}
	return "arn:aws:kinesis:eu-west-1:000000000000:stream/" + g.name()
}

func (g bodies) data() []byte { return rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(g.t, "data") }

// member is one member of a body to be written.
type bodyMember struct {
	name  string
	value any // string, []byte, [][]bodyMember, or nil
}

func (g bodies) entry() []bodyMember {
	ms := []bodyMember{{"Data", g.data()}, {"PartitionKey", g.key()}}
	if rapid.Bool().Draw(g.t, "hash") {
		ms = append(ms, bodyMember{"ExplicitHashKey", g.number()})
	}
	return g.spoil(ms)
}

func (g bodies) request() []bodyMember {
	var ms []bodyMember
	if g.single {
		ms = g.entry()
		if rapid.Bool().Draw(g.t, "ordering") {
			ms = append(ms, bodyMember{"SequenceNumberForOrdering", g.number()})
		}
	} else {
		list := [][]bodyMember{}
		for range rapid.IntRange(1, 4).Draw(g.t, "records") {
			list = append(list, g.entry())
		}
		ms = []bodyMember{{"Records", list}}
	}
	if rapid.Bool().Draw(g.t, "named") {
		ms = append(ms, bodyMember{"StreamName", g.name()})
	}
	if rapid.Bool().Draw(g.t, "by ARN") {
		ms = append(ms, bodyMember{"StreamARN", g.arn()})
	}
	return g.spoil(ms)
}

// spoil shuffles members, and now and then doubles, drops or replaces some.
func (g bodies) spoil(ms []bodyMember) []bodyMember {
	ms = rapid.Permutation(ms).Draw(g.t, "order")
	if g.oddly() {
		ms = append(ms, rapid.SampledFrom(ms).Draw(g.t, "doubled"))
	}
	if g.oddly() {
		ms = ms[1:]
	}
	if g.oddly() {
		ms = append(ms, bodyMember{rapid.SampledFrom([]string{"Unknown", "StreamId", "data"}).Draw(g.t, "extra"), "x"})
	}
	if g.oddly() && len(ms) > 0 {
		i := rapid.IntRange(0, len(ms)-1).Draw(g.t, "replaced")
		ms[i].value = rapid.SampledFrom([]any{nil, "x", []byte{1}, [][]bodyMember{}}).Draw(g.t, "value")
	}
	return ms
}

func (g bodies) space(b []byte) []byte {
	return append(b, rapid.SampledFrom([]string{"", "", "", " ", "\n\t"}).Draw(g.t, "space")...)
}

func (g bodies) json(b []byte, ms []bodyMember) []byte {
	b = g.space(append(b, '{'))
	for i, m := range ms {
		if i > 0 {
			b = append(b, ',')
		}
		b = g.space(append(g.space(g.jsonString(g.space(b), m.name)), ':'))
		switch v := m.value.(type) {
		case nil:
			b = append(b, "null"...)
		case string:
			b = g.jsonString(b, v)
		case []byte:
			text := base64.StdEncoding.EncodeToString(v)
			if g.oddly() {
				text = rapid.SampledFrom([]string{text + "=", "\n" + text, text + "\r\n", "A===", "AB==", "====", "AA=A", text + "\"", "é===", `\\\"`}).Draw(g.t, "bad")
			}
			b = g.jsonString(b, text)
		case [][]bodyMember:
			b = append(b, '[')
			for i, e := range v {
				if i > 0 {
					b = g.space(append(b, ','))
				}
				b = g.json(b, e)
			}
			b = append(b, ']')
		}
		b = g.space(b)
	}
	return append(b, '}')
}

// jsonString writes a string, now and then with needless escapes.
func (g bodies) jsonString(b []byte, s string) []byte {
	if rapid.IntRange(0, 7).Draw(g.t, "escape") > 0 {
		return appendJSONString(b, s)
	}
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '/':
			b = append(b, '\\', '/')
		case r > 0xffff:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04X\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

func (g bodies) cbor(b []byte, ms []bodyMember) []byte {
	b, end := g.cborHead(b, cborMap, len(ms))
	for _, m := range ms {
		b = g.cborString(b, cborText, m.name)
		switch v := m.value.(type) {
		case nil:
			b = append(b, cborNull)
		case string:
			b = g.cborString(b, cborText, v)
		case []byte:
			b = g.cborString(b, cborBytes, string(v))
		case [][]bodyMember:
			var end []byte
			b, end = g.cborHead(b, cborArray, len(v))
			for _, e := range v {
				b = g.cbor(b, e)
			}
			b = append(b, end...)
		}
	}
	return append(b, end...)
}

func (g bodies) cborHead(b []byte, major byte, n int) (out, end []byte) {
	switch rapid.IntRange(0, 5).Draw(g.t, "head") {
	case 0:
		return append(b, major|31), []byte{cborBreak}
	case 1:
		return binary.BigEndian.AppendUint64(append(b, major|27), uint64(n)), nil
	case 2:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n)), nil
	}
	return appendCBORHead(b, major, uint64(n)), nil
}

func (g bodies) cborString(b []byte, major byte, s string) []byte {
	if g.oddly() {
		b = append(b, 0xd8, 0x20)
	}
	if g.oddly() { // in chunks
		return append(append(appendCBORHead(append(b, major|31), major, uint64(len(s))), s...), major, cborBreak)
	}
	return append(appendCBORHead(b, major, uint64(len(s))), s...)
}

// TestScanAgrees draws bodies and, half of the time, breaks bytes of them.
func TestScanAgrees(t *testing.T) {
	for _, f := range []Format{JSON, CBOR} {
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprintf("format %d single %v", f, single), func(t *testing.T) {
				var s PutScan
				taken, drawn := 0, 0
				rapid.Check(t, func(t *rapid.T) {
					g := bodies{t: t, single: single, odd: rapid.Bool().Draw(t, "oddities")}
					var body []byte
					if f == JSON {
						body = g.json(nil, g.request())
					} else {
						body = g.cbor(nil, g.request())
					}
					whole := len(body)
					if rapid.Bool().Draw(t, "broken") {
						for range rapid.IntRange(1, 3).Draw(t, "breaks") {
							body = breakBytes(t, body)
						}
					} else if !g.odd {
						drawn++
					}
					if checkScan(t, &s, f, body, single) && !g.odd && len(body) == whole {
						taken++
					}
				})
				if taken*2 < drawn {
					t.Errorf("only %d of %d good bodies were scanned", taken, drawn)
				}
			})
		}
	}
}

func breakBytes(t *rapid.T, body []byte) []byte {
	if len(body) == 0 {
		return body
	}
	i := rapid.IntRange(0, len(body)-1).Draw(t, "at")
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		body[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	case 1:
		body[i] = rapid.SampledFrom([]byte("\"\\{}[],:=/\x00\xff\xf6\x9f\xbf")).Draw(t, "byte")
	case 2:
		body = append(body[:i:i], body[i+1:]...)
	case 3:
		body = body[:i]
	}
	return body
}

// TestVectorBase64 compares the vectorised decoder with the standard library's
// strict one, with each byte at each place of a text long enough for it.
func TestVectorBase64(t *testing.T) {
	standard := base64.StdEncoding.Strict()
	data := make([]byte, 100)
	for i := range data {
		data[i] = byte(i * 37)
	}
	for n := 90; n <= 100; n++ {
		text := []byte(standard.EncodeToString(data[:n]))
		a, b := make([]byte, len(text)), make([]byte, len(text))
		for i := range text {
			was := text[i]
			for c := range 256 {
				text[i] = byte(c)
				na, erra := vectorBase64.Decode(a[:len(text)/4*3], text)
				nb, errb := standard.Decode(b[:len(text)/4*3], text)
				if (erra == nil) != (errb == nil) || erra == nil && (na != nb || !bytes.Equal(a[:na], b[:nb])) {
					t.Fatalf("%q: %d, %v and %d, %v", text, na, erra, nb, errb)
				}
			}
			text[i] = was
		}
		if got := appendBase64(nil, data[:n]); string(got) != string(text) {
			t.Fatalf("encoded %s, want %s", got, text)
		}
	}
}

// TestQuickWayAllocatesNothing: no allocation for a whole request once the
// buffers are there.
func TestQuickWayAllocatesNothing(t *testing.T) {
	var s PutScan
	dst := make([]byte, 0, benchRecords*(benchSize+8))
	answer := make([]byte, 0, 1<<20)
	results := make([]PutResult, benchRecords)
	read := &GetRecordsAnswer{RecordRun: RecordRun{Batches: benchBatches(), To: benchRecords}, NextShardIterator: "i"}
	for _, f := range []Format{JSON, CBOR} {
		body := AppendOutput(nil, f, benchInput())
		if n := testing.AllocsPerRun(10, func() {
			if !s.ScanPutRecords(f, body) {
				t.Fatal("not scanned")
			}
			dst = dst[:0]
			for i := range s.Entries {
				var err error
				if dst, err = s.Entries[i].Data.AppendTo(dst); err != nil {
					t.Fatal(err)
				}
			}
			answer = AppendPutRecordsOutput(answer[:0], f, results, "")
		}); n != 0 {
			t.Errorf("format %d: %v allocations to put", f, n)
		}
		if n := testing.AllocsPerRun(10, func() { answer = AppendGetRecordsOutput(answer[:0], f, read) }); n > 1 {
			t.Errorf("format %d: %v allocations to get", f, n)
		}
	}
}
