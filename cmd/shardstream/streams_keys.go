package main

import (
	"fmt"
	"io"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// dataKeyRow is a data key of a stream as --json prints it. Operators want to
// know until when the key that wrapped it is needed.
type dataKeyRow struct {
	ID      uint32 `json:"id"`
	KeyID   string `json:"keyId"` // of the wrapping key
	Created string `json:"created"`
	Retired string `json:"retired,omitempty"`     // absent while it is in use
	Needed  string `json:"neededUntil,omitempty"` // its records expire until then; absent while it is in use
}

// keyMargin covers puts that were under way and brokers that lag behind, as it
// does in the metadata.
const keyMargin = 24 * time.Hour

func dataKeyRows(s *pb.Stream) []dataKeyRow {
	rows := []dataKeyRow{}
	for _, k := range s.DataKeys {
		r := dataKeyRow{ID: k.Id, KeyID: k.KeyId, Created: timeText(k.CreatedMs)}
		if k.RetiredMs != 0 {
			needed := time.Duration(s.RetentionHours)*time.Hour + keyMargin
			r.Retired, r.Needed = timeText(k.RetiredMs), timeText(k.RetiredMs+needed.Milliseconds())
		}
		rows = append(rows, r)
	}
	return rows
}

// printDataKeys prints the data keys, if there are any.
func printDataKeys(w io.Writer, rows []dataKeyRow) {
	for _, r := range rows {
		if r.Retired == "" {
			fmt.Fprintf(w, "data key %d, wrapped by %s: in use since %s\n", r.ID, r.KeyID, r.Created)
		} else {
			fmt.Fprintf(w, "data key %d, wrapped by %s: used until %s, needed until %s\n", r.ID, r.KeyID, r.Retired, r.Needed)
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
	}
}
