package raftfsm

import (
	"cmp"
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// piece is a shard that a reshard makes, or a parent that it ends.
type piece struct {
	number  uint32
	keys    stream.HashRange
	parents []uint32
	// passing pieces are split or merged on by the same reshard, and never take
	// a record.
	passing bool
}

// rescaling computes the splits and merges of an UpdateShardCount.
type rescaling struct {
	next uint32   // number of the next piece
	made []*piece // in the order of their numbers
}

// rescale gives the pieces by which the open shards, by their ranges, become
// target ones, as the Kinesis API does it: to have more, every shard is split
// in the middle and then neighbours are merged until there are no more than
// asked for; to have fewer, neighbours are merged. target is neither above
// double of what there is nor below half.
//
// Merged are those that are smallest together. After a split these are never
// the two halves of one shard, which would undo it.
func rescale(open []*piece, next uint32, target int) []*piece {
	r := rescaling{next: next}
	var pairs [][2]*piece
	if target > len(open) {
		var halves []*piece
		for _, p := range open {
			halves = append(halves, r.split(p)...)
		}
		for i := 1; i+1 < len(halves); i += 2 {
			pairs = append(pairs, [2]*piece{halves[i], halves[i+1]})
		}
		r.mergeSome(pairs, len(halves)-target)
		return r.made
	}
	for i := 0; i+1 < len(open); i += 2 {
		pairs = append(pairs, [2]*piece{open[i], open[i+1]})
	}
	r.mergeSome(pairs, len(open)-target)
	return r.made
}

func (r *rescaling) add(keys stream.HashRange, parents ...*piece) *piece {
	p := &piece{number: r.next, keys: keys}
	for _, parent := range parents {
		parent.passing = true
		p.parents = append(p.parents, parent.number)
	}
	r.next++
	r.made = append(r.made, p)
	return p
}

// split gives the two halves; the lower one has the smaller number.
func (r *rescaling) split(p *piece) []*piece {
	return r.splitAt(p, middle(p.keys))
}

func (r *rescaling) splitAt(p *piece, at stream.HashKey) []*piece {
	return []*piece{
		r.add(stream.HashRange{Start: p.keys.Start, End: at.Prev()}, p),
		r.add(stream.HashRange{Start: at, End: p.keys.End}, p),
	}
}

func (r *rescaling) merge(low, high *piece) {
	r.add(stream.HashRange{Start: low.keys.Start, End: high.keys.End}, low, high)
}

// mergeSome merges n of the pairs, of which no two have a piece in common.
func (r *rescaling) mergeSome(pairs [][2]*piece, n int) {
	width := func(p [2]*piece) stream.HashKey { return p[1].keys.End.Sub(p[0].keys.Start) }
	slices.SortStableFunc(pairs, func(x, y [2]*piece) int { return width(x).Compare(width(y)) })
	pairs = pairs[:n]
	slices.SortFunc(pairs, func(x, y [2]*piece) int { return x[0].keys.Start.Compare(y[0].keys.Start) })
	for _, p := range pairs {
		r.merge(p[0], p[1])
	}
}

// middle gives the first key of a range's higher half: the lower one is larger
// if they can't be equal.
func middle(r stream.HashRange) stream.HashKey {
	d := r.End.Sub(r.Start)
	return r.Start.Add(stream.HashKey{Hi: d.Hi >> 1, Lo: d.Lo>>1 | d.Hi<<63}).Next()
}

// openPieces gives the stream's open shards by their ranges.
func openPieces(shards []*pb.Shard) []*piece {
	var open []*piece
	for _, sh := range shards {
		if sh.GetState() == pb.ShardState_SHARD_STATE_OPEN {
			open = append(open, pieceOf(sh))
		}
	}
	slices.SortFunc(open, func(x, y *piece) int {
		return cmp.Or(x.keys.Start.Compare(y.keys.Start), cmp.Compare(x.number, y.number))
	})
	return open
}

func pieceOf(sh *pb.Shard) *piece {
	r := sh.GetRange()
	return &piece{number: sh.GetNumber(), keys: stream.HashRange{
		Start: stream.HashKey{Hi: r.GetStartHi(), Lo: r.GetStartLo()},
		End:   stream.HashKey{Hi: r.GetEndHi(), Lo: r.GetEndLo()},
	}}
}

func rangeMessage(r stream.HashRange) *pb.HashRange {
	return &pb.HashRange{StartHi: r.Start.Hi, StartLo: r.Start.Lo, EndHi: r.End.Hi, EndLo: r.End.Lo}
}
