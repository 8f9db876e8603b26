package grpcapi

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Messages that carry much data are not unmarshalled as others are, which would copy the
// bytes twice into fresh memory: they are copied once, to where the ones before were.

// A wireMessage is a message as it is sent. One that is received lies in memory that is
// used again.
type wireMessage struct{ b []byte }

// A splitMessage is a message in two parts, of which the second is not copied. It must stay
// as it is until the call has been answered.
type splitMessage struct{ head, data []byte }

// wireCodec is the usual codec, and knows wireMessage and splitMessage besides.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *wireMessage:
		return mem.BufferSlice{mem.Copy(m.b, mem.DefaultBufferPool())}, nil
	case *splitMessage:
		return mem.BufferSlice{mem.SliceBuffer(m.head), mem.SliceBuffer(m.data)}, nil
	case proto.Message:
		b, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, errors.New("not a message")
}

func (wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *wireMessage:
		n := data.Len() // bounded by MaxCallRecvMsgSize
		if cap(m.b) < n {
			m.b = make([]byte, n)
		}
		m.b = m.b[:n]
		data.CopyTo(m.b)
		return nil
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), m)
	}
	return errors.New("not a message")
}

// errNothing: messages without content could go on for ever.
var errNothing = nodeErrorf("a piece of a stream with nothing in it")

// fields yields the fields of a message that have bytes, by number; others are skipped,
// as a client of an older version skips what it does not know.
func (m *wireMessage) fields(yield func(n protowire.Number, value []byte) error) error {
	return wireFields(m.b, yield)
}

func wireFields(b []byte, yield func(n protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nodeErrorf("a message that is no protobuf: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return nodeErrorf("a message that is no protobuf: %w", protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nodeErrorf("a message that is no protobuf: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if err := yield(num, value); err != nil {
			return err
		}
	}
	return nil
}

// receive calls a method that answers with a stream of data and gives each message to
// take, which must not keep it. Errors of take are returned as they are, others are those
// of the call. A stream that brings nothing for too long is given up.
func (c *Client) receive(ctx context.Context, method string, req proto.Message, take func(m *wireMessage) error) (callErr, takeErr error) {
	ctx, idle := watchIdle(ctx)
	defer idle.stop()
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodecV2(wireCodec{}))
	if err != nil {
		return idle.cause(err), nil
	}
	if err := s.SendMsg(req); err != nil && err != io.EOF { // of EOF, RecvMsg has the reason
		return idle.cause(err), nil
	}
	if err := s.CloseSend(); err != nil {
		return idle.cause(err), nil
	}
	var m wireMessage
	for {
		if err := s.RecvMsg(&m); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return idle.cause(err), nil
		}
		idle.pause()
		if err := take(&m); err != nil {
			return nil, err
		}
		idle.wait()
	}
}
