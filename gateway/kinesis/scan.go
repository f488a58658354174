package kinesis

// PutScan reads the bodies of PutRecord and PutRecords without reflection and
// without an allocation per record. It is reusable; what it holds is good until
// the next scan, and as long as the body is left alone.
type PutScan struct {
	StreamName, StreamARN     string // "" absent
	SequenceNumberForOrdering string // PutRecord only; "" absent
	Entries                   []PutEntry

	scratch []byte // strings that had escapes
}

// PutEntry is one record to put.
type PutEntry struct {
	PartitionKey    []byte
	ExplicitHashKey []byte // nil absent; decimal, but not checked to be below 2^128
	Data            Blob
}

// Blob is the data of a record as it stands in the body: base64 text in JSON,
// plain bytes in CBOR.
type Blob struct {
	raw    []byte
	size   int
	base64 bool
}

// Len gives the number of bytes of data.
func (b Blob) Len() int { return b.size }
