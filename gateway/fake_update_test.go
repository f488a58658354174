package gateway

import (
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// updateLocked changes a stream as the metadata does by UpdateStream, as far as
// tests here need it.
func (f *fakeBroker) updateLocked(c *pb.UpdateStream) (*pb.CommandResult, *pb.MetadataEvent) {
	s := f.streams[c.StreamId]
	if s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		r := refusal(stream.WrongState)
		r.Status = s.Status
		return r, nil
	}
	limit := max(c.GetStartEncryption().GetDailyLimit(), c.GetStopEncryption().GetDailyLimit())
	if n := len(s.EncryptionStartsMs); limit > 0 && n >= int(limit) {
		r := refusal(stream.LimitExceeded)
		r.Refusal, r.Limit = pb.Refusal_REFUSAL_DAILY_LIMIT, uint64(limit)
		return r, nil
	}
	s = f.editStreamLocked(s.Id, func(s *pb.Stream) {
		switch change := c.Change.(type) {
		case *pb.UpdateStream_StartEncryption:
			s.DataKey = uint32(len(s.DataKeys)) + 1
			s.DataKeys = append(s.DataKeys, &pb.DataKey{Id: s.DataKey, KeyId: change.StartEncryption.KeyId, Wrapped: change.StartEncryption.Wrapped})
			s.EncryptionStartsMs = append(s.EncryptionStartsMs, f.now().UnixMilli())
		case *pb.UpdateStream_StopEncryption:
			s.DataKey = 0
		case *pb.UpdateStream_ShardMetrics:
			s.ShardMetrics = change.ShardMetrics.Metrics
		}
	})
	return &pb.CommandResult{}, &pb.MetadataEvent{Streams: []*pb.Stream{s}}
}
