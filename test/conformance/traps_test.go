package conformance

import "testing"

// traps are what implementations of the API have got wrong, so that real clients
// stalled or lost records, and the rows that hold it here.
var traps = map[string]string{
	"ListShards ignores its filter":                           "6.4 filters/of a stream that was resharded",
	"NextToken is never given":                                "3.4 ListShards/at most 1000",
	"NextToken is taken beside what it remembers":             "3.4 ListShards/token and what it remembers",
	"SubscribeToShard answers plain JSON":                     "2.3 frames/data",
	"SubscribeToShard has no initial response":                "2.2 initial response/headers and first frame",
	"SubscribeToShard ignores its position":                   "2.6 position/all types",
	"SubscribeToShard is silent for more than 10 s":           "2.4 event/an event also while nothing comes",
	"SubscribeToShard goes on without a continuation":         "2.4 event/continuation advances without records",
	"a subscription ends without ChildShards":                 "2.4 event/the last of a shard that was split",
	"a second subscription is refused for ever":               "2.5 one subscription/the rules",
	"a consumer subscribes before it is ACTIVE":               "2.5 consumer/not ACTIVE",
	"HTTP/2 needs ALPN":                                       "2.1 transport/HTTP/2 over TLS without ALPN",
	"HTTP/2 has no ALPN":                                      "2.1 transport/HTTP/2 over TLS by ALPN",
	"CBOR has times as seconds or floats":                     "1.4 CBOR/timestamp",
	"CBOR of indefinite length is not read":                   "1.4 CBOR/accepted forms",
	"a StreamId leads SDKs to AWS":                            "1.10 StreamId/taken and ignored, never given",
	"answers have no Date, so that clocks can't be corrected": "3.1 throttled/Date is always sent",
	"consumers are not found by an ARN of another region":     "3.7 consumer address/regions are not compared",
	"EnforceConsumerDeletion is inverted":                     "3.3 DeleteStream/consumers",
	"only ACTIVE streams can be deleted":                      "3.2 UPDATING/DeleteStream",
	"ON_DEMAND with a ShardCount is taken":                    "3.3 CreateStream/ON_DEMAND and a count",
	"a retention of 24 hours is an error":                     "3.3 retention/equal to current",
	"UpdateShardCount counts closed shards":                   "6.3 UpdateShardCount/counts open shards only",
	"the quota counts closed shards":                          "3.3 DescribeLimits/counts open shards",
	"ListStreams has more and gives no token":                 "3.3 ListStreams/pages",
	"ListShards of a stream in CREATING succeeds":             "3.2 CREATING/ListShards",
	"numbers of no record are refused":                        "5.1 GetShardIterator/numbers of no record",
	"AT_TIMESTAMP behind the last record never answers":       "5.1 GetShardIterator/AT_TIMESTAMP",
	"a number of another shard is taken":                      "5.1 sequence checks/another shard",
	"sequence numbers are small":                              "4.3 numbers/of a shard and its records",
	"the end of a range is not in it":                         "4.1 routing/ExplicitHashKey",
	"records move into the children":                          "6.5 lifecycle/closed shards stay readable",
	"a closed shard is read for ever":                         "5.3 GetRecords/end of a shard that was split",
	"the child of a merge has one parent":                     "5.3 GetRecords/end of shards that were merged",
	"open shards leave a hole":                                "6.1 ranges/cover the space",
	"failed records have numbers":                             "4.5 results/all failed is 200",
}

func TestTraps(t *testing.T) {
	for trap, row := range traps {
		if elsewhere, listed := reference[row]; !listed || elsewhere != "" {
			t.Errorf("%s: there is no row %s", trap, row)
		}
	}
}
