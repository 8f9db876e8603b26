package grpcapi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// The server's codec hands messages on as they came and as they go: the stream of a call
// decodes them, where it can say what is wrong in the API's own terms, and where messages
// that carry data need not be copied into fresh memory.
type serverCodec struct{}

var _ encoding.CodecV2 = serverCodec{}

func (serverCodec) Name() string { return "proto" }

// A received message is what the transport brought. Its owner frees it.
type received struct{ data mem.BufferSlice }

// An encoded message is one that was encoded before. Sending it takes it.
type encoded struct{ data mem.BufferSlice }

var errNotEncoded = errors.New("message was not encoded by its call's stream")

func (serverCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*encoded)
	if !ok {
		return nil, fmt.Errorf("%T: %w", v, errNotEncoded)
	}
	data := m.data
	m.data = nil
	return data, nil
}

func (serverCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*received)
	if !ok {
		return fmt.Errorf("%T: %w", v, errNotEncoded)
	}
	m.data.Free() // of a message too many: the transport refuses the call then
	data.Ref()
	m.data = append(m.data[:0], data...)
	return nil
}

// A rawMessage decodes itself. It keeps what it needs of data, which is freed after it
// returns, by a reference of its own.
type rawMessage interface {
	decode(data mem.BufferSlice) error
}

// decode reads a message of at most that many bytes.
func decode(data mem.BufferSlice, most int, v any) error {
	if n := data.Len(); n > most {
		return fmt.Errorf("a message of %d bytes, must be at most %d: %w", n, most, store.ErrInvalid)
	}
	switch m := v.(type) {
	case rawMessage:
		return m.decode(data)
	case proto.Message:
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buf.Free()
		if _, ok := m.(*scalev1.FindMissingRequest); ok {
			// A list of empty digests takes many times its size.
			if err := atMost(buf.ReadOnlyData(), maxFindDigests); err != nil {
				return inField("digests", err)
			}
		}
		return unmarshal(buf.ReadOnlyData(), m)
	}
	return fmt.Errorf("%T: %w", v, errNotEncoded)
}

func unmarshal(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: not a %s: %w", store.ErrInvalid, m.ProtoReflect().Descriptor().FullName(), err)
	}
	return nil
}

// encode makes v, a message of at most that many bytes or an encoded one, ready to be sent,
// once there is room for it.
func encode(ctx context.Context, a *account, v any, most int, admit bool) (*encoded, error) {
	if e, ok := v.(*encoded); ok {
		return e, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T: %w", v, errNotEncoded)
	}
	opt := proto.MarshalOptions{UseCachedSize: true}
	size := proto.Size(m)
	if size > most {
		return nil, fmt.Errorf("%w: an answer of %d bytes, a message has at most %d", ErrLimit, size, most)
	}
	if admit {
		if err := a.admit(ctx, answers.size(size)+answerSlack); err != nil {
			return nil, err
		}
	}
	buf := answers.take(size)
	if _, err := opt.MarshalAppend(buf.all[:0], m); err != nil {
		return nil, err
	}
	return &encoded{mem.BufferSlice{a.send(buf, size)}}, nil
}
