package gateway

import (
	"maps"
	"slices"
	"unicode"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: AddTagsToStream and TagResource add tags or overwrite their values,
// RemoveTagsFromStream and UntagResource remove them, unknown keys ignored; all
// answer empty. ListTagsForStream pages by key, ListTagsForResource gives all.
// The operations of resources also know consumers.
//
//   - Up to 50 tags per stream or consumer; keys of 1 to 128, values of 0 to 256 characters.
//   - Letters, digits, the plain space and _ . / = + - @ are fine, and so is ":",
//     which AWS documents for TagResource. "%" passes the first check of the
//     characters and fails the second, as on AWS.
//   - The stream is looked for before the characters are looked at, and must
//     have been created: tags change when it is ACTIVE or UPDATING.
//   - Lists are in the order of the keys' code points.

const (
	maxTags         = 50
	defaultTagsPage = 50
)

func addTagsToStream(c *call, in *kinesis.AddTagsToStreamInput) (*empty, *kinesis.Error) {
	r, failure := c.locateStream(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	return nil, c.addTags(r, in.Tags)
}

func tagResource(c *call, in *kinesis.TagResourceInput) (*empty, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	return nil, c.addTags(r, in.Tags)
}

func removeTagsFromStream(c *call, in *kinesis.RemoveTagsFromStreamInput) (*empty, *kinesis.Error) {
	r, failure := c.locateStream(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	return nil, c.removeTags(r, in.TagKeys)
}

func untagResource(c *call, in *kinesis.UntagResourceInput) (*empty, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	return nil, c.removeTags(r, in.TagKeys)
}

func listTagsForStream(c *call, in *kinesis.ListTagsForStreamInput) (*kinesis.ListTagsForStreamOutput, *kinesis.Error) {
	_, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	tags := tagsAfter(v.Tags, deref(in.ExclusiveStartTagKey))
	limit := defaultTagsPage
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	more := len(tags) > limit
	if more {
		tags = tags[:limit]
	}
	return &kinesis.ListTagsForStreamOutput{Tags: tags, HasMoreTags: more}, nil
}

func listTagsForResource(c *call, in *kinesis.ListTagsForResourceInput) (*kinesis.ListTagsForResourceOutput, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	return &kinesis.ListTagsForResourceOutput{Tags: tagsAfter(r.tags(), "")}, nil
}

// tagsAfter gives the tags whose keys are greater, in order; never nil.
func tagsAfter(all map[string]string, key string) []kinesis.Tag {
	tags := make([]kinesis.Tag, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if k > key {
			tags = append(tags, kinesis.Tag{Key: k, Value: new(all[k])})
		}
	}
	return tags
}

func (c *call) addTags(r resource, tags map[string]string) *kinesis.Error {
	if failure := taggable(r.v, r.account); failure != nil {
		return failure
	}
	if failure := checkTags(tags, r.v.Name, r.account); failure != nil {
		return failure
	}
	result, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_AddTags{AddTags: &pb.AddTags{
		StreamId: r.v.Id, Consumer: r.ref, Tags: tags, Limit: maxTags,
	}}})
	if err != nil {
		return c.fail(err, subject{name: r.v.Name, account: r.account})
	}
	if stream.Kind(result.Error) == stream.LimitExceeded && result.Limit == maxTags {
		return kinesis.TooManyTags(r.v.Name, r.account)
	}
	return c.resourceRefused(r, result)
}

func (c *call) removeTags(r resource, keys []string) *kinesis.Error {
	if failure := taggable(r.v, r.account); failure != nil {
		return failure
	}
	switch judgeTags(slices.Values(keys)) {
	case tagInvalid:
		return kinesis.InvalidTagCharacters()
	case tagIllegal:
		return kinesis.IllegalTagsRemoved(r.v.Name, r.account)
	}
	result, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_RemoveTags{RemoveTags: &pb.RemoveTags{
		StreamId: r.v.Id, Consumer: r.ref, Keys: keys,
	}}})
	if err != nil {
		return c.fail(err, subject{name: r.v.Name, account: r.account})
	}
	return c.resourceRefused(r, result)
}

func taggable(v *streamView, account string) *kinesis.Error {
	if v.Status == pb.StreamStatus_STREAM_STATUS_UPDATING {
		return nil
	}
	return mustBeActive(v, account)
}

func checkTags(tags map[string]string, name, account string) *kinesis.Error {
	switch max(judgeTags(maps.Keys(tags)), judgeTags(maps.Values(tags))) {
	case tagInvalid:
		return kinesis.InvalidTagCharacters()
	case tagIllegal:
		return kinesis.IllegalTagsAdded(name, account)
	}
	return nil
}

type tagVerdict int

const (
	tagFine tagVerdict = iota
	tagIllegal
	tagInvalid
)

// judgeTags gives the worst verdict on any of the strings.
func judgeTags(words func(yield func(string) bool)) tagVerdict {
	worst := tagFine
	for word := range words {
		for _, r := range word {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r):
			case r == '%':
				worst = max(worst, tagIllegal)
			default:
				if !isTagMark(r) {
					return tagInvalid
				}
			}
		}
	}
	return worst
}

func isTagMark(r rune) bool {
	switch r {
	case ' ', '_', '.', '/', '=', '+', '-', '@', ':':
		return true
	}
	return false
}
