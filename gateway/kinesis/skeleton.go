package kinesis




// ScanPutRecords reads a PutRecords body.
func (s *PutScan) ScanPutRecords(f Format, body []byte) bool { return false }

// ScanPutRecord reads a PutRecord body; its one record is Entries[0].
func (s *PutScan) ScanPutRecord(f Format, body []byte) bool { return false }

// AppendTo appends the data.
func (b Blob) AppendTo(dst []byte) ([]byte, error) { return append(dst, b.raw...), nil }

// AppendPutRecordsOutput appends the answer of a PutRecords.
func AppendPutRecordsOutput(dst []byte, f Format, results []PutResult, encryptionType string) []byte {
	return dst
}

// AppendPutRecordOutput appends the answer of a PutRecord.
func AppendPutRecordOutput(dst []byte, f Format, r PutResult, encryptionType string) []byte {
	return dst
}

// AppendGetRecordsOutput appends the answer of a GetRecords.
func AppendGetRecordsOutput(dst []byte, f Format, a *GetRecordsAnswer) []byte { return dst }

// AppendSubscribeEvent appends the payload of an event, which is always JSON.
func AppendSubscribeEvent(dst []byte, e *SubscribeEvent) []byte { return dst }
