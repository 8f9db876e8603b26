package grpcapi

import (
	"context"
	_ "embed" // the document of the API
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

//go:embed scale.swagger.json
var openAPI []byte

// maxGatewayMessage is the limit of a message, as for every client.
const maxGatewayMessage = 4 << 20

// A strictQuery refuses a parameter that is no field of a message of ours, which a typing
// error in its name would otherwise leave out without a word, and one that is not UTF-8,
// which would be found only when the message is sent on.
type strictQuery struct{ runtime.DefaultQueryParser }

func (q *strictQuery) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	if d := msg.ProtoReflect().Descriptor(); d.ParentFile().Package() == "scale.v1" {
		for key, vs := range values {
			if !hasField(d, strings.Split(key, ".")) {
				return fmt.Errorf("there is no parameter %q", cutText(key, maxQueryKey))
			}
			if !utf8.ValidString(strings.Join(vs, "")) {
				return fmt.Errorf("the parameter %q is not UTF-8", key)
			}
		}
	}
	return q.DefaultQueryParser.Parse(msg, values, filter)
}

const maxQueryKey = 64

func hasField(d protoreflect.MessageDescriptor, path []string) bool {
	f := d.Fields().ByTextName(path[0])
	if f == nil {
		f = d.Fields().ByJSONName(path[0])
	}
	if f == nil || len(path) == 1 {
		return f != nil
	}
	return f.Message() != nil && !f.IsList() && hasField(f.Message(), path[1:])
}

// setQuery sets the parser of queries, of which a process has one.
var setQuery = sync.OnceFunc(func() { runtime.SetQueryParameterParser(&strictQuery{})(nil) })

// newGateway makes the handler that turns requests into calls on h.conn.
func (h *HTTP) newGateway() (http.Handler, error) {
	setQuery()
	none := func(string) (string, bool) { return "", false }
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &jsonMarshaler{runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true},
			// A field with a typing error in its name is not silently left out.
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}}),
		// No header becomes metadata, and no metadata a header, but for callerMetadata.
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithMetadata(callerMetadata),
		runtime.WithErrorHandler(h.gatewayError),
		runtime.WithRoutingErrorHandler(h.routingError),
		runtime.WithStreamErrorHandler(streamError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background()
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		scalev1.RegisterDatasetServiceHandler, scalev1.RegisterLedgerServiceHandler, scalev1.RegisterProofServiceHandler,
		scalev1.RegisterAuditServiceHandler, scalev1.RegisterCuratorServiceHandler, scalev1.RegisterAnchorServiceHandler,
		scalev1.RegisterNodeServiceHandler,
	} {
		if err := register(ctx, mux, h.conn); err != nil {
			return nil, err
		}
	}
	return mux, nil
}

// Who calls goes from the port to the server in metadata. It counts only on connections
// inside this process (gatewayConn), which nobody else can make.
const callerKey = "scale-http-caller-bin"

type callerContextKey struct{}

// A requestCaller is who makes a request, and what he shows.
type requestCaller struct {
	caller
	authorization []string
	account       uint64 // of its answer, for the server
	who           Identity
}

type callerJSON struct {
	Addr          string
	Anonymous     scalev1.Scope
	Authorization []string
	Account       uint64
}

func callerMetadata(ctx context.Context, r *http.Request) metadata.MD {
	c := ctx.Value(callerContextKey{}).(requestCaller)
	name, _ := runtime.RPCMethod(ctx)
	if b, ok := r.Body.(*pacedBody); ok {
		// What a caller may not do is not read for him either: JSON takes more than its length.
		if m, ok := methods[name]; ok && c.who.Scope < m.scope {
			b.fault = scopeError(m, c.who)
		}
		pattern, _ := runtime.HTTPPathPattern(ctx)
		b.inPath, b.single = pathFields(pattern, r.URL.Path), !streams(name)
	}
	b, err := json.Marshal(callerJSON{c.addr, c.anonymous, c.authorization, c.account})
	if err != nil {
		panic(err) // strings and a number
	}
	md := metadata.Pairs(callerKey, string(b))
	for _, key := range []string{"traceparent", "tracestate"} {
		v := r.Header.Get(key)
		odd := func(c rune) bool { return c < ' ' || c > '~' } // which metadata cannot have
		if v != "" && len(v) <= maxTraceHeader && !strings.ContainsFunc(v, odd) {
			md.Set(key, v)
		}
	}
	return md
}

// maxTraceHeader is what every party has to pass on of tracestate (W3C Trace Context, 3.3.1.5).
const maxTraceHeader = 512

// gatewayCaller reads what callerMetadata wrote. The certificate is with the account.
func gatewayCaller(md metadata.MD) (c requestCaller, err error) {
	var j callerJSON
	v := md.Get(callerKey)
	if len(v) != 1 || json.Unmarshal([]byte(v[0]), &j) != nil {
		return c, fmt.Errorf("%w: the HTTP port did not say who calls", ErrToken)
	}
	return requestCaller{caller{routeGateway, j.Addr, nil, j.Anonymous}, j.Authorization, j.Account, Identity{}}, nil
}

// A jsonMarshaler reads messages from a pacedBody, each within its bounds.
type jsonMarshaler struct{ runtime.JSONPb }

func (m *jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	d := runtime.DecoderWrapper{Decoder: json.NewDecoder(r), UnmarshalOptions: m.UnmarshalOptions}
	b, ok := r.(*pacedBody)
	if !ok {
		return d
	}
	return runtime.DecoderFunc(func(v any) error {
		b.next()
		err := d.Decode(v)
		if err == nil {
			err = b.complete(d.Decoder, v.(proto.Message))
		}
		return err
	})
}

// complete refuses what the gateway would leave out without a word: what stands behind the
// only message of a call, and fields that say something else than the path.
func (b *pacedBody) complete(d *json.Decoder, m proto.Message) error {
	if b.single {
		if _, err := d.Token(); err != io.EOF && b.fault == nil {
			b.fault = fmt.Errorf("%w: the call takes one message, and more follows it in the body", store.ErrInvalid)
		}
	}
	r := m.ProtoReflect()
	for _, f := range b.inPath {
		if d := r.Descriptor().Fields().ByTextName(f.name); d != nil && r.Has(d) && r.Get(d).String() != f.value && b.fault == nil {
			b.fault = invalidf(f.name, "the body has %q, the path %q", cutText(r.Get(d).String(), maxQueryKey), f.value)
		}
	}
	return b.fault
}

// streams reports whether the requests of a method are a stream.
func streams(method string) bool {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")))
	m, ok := d.(protoreflect.MethodDescriptor)
	return err == nil && ok && m.IsStreamingClient()
}

// gatewayError answers with the error of a call.
func (h *HTTP) gatewayError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Del("Trailer")
	w.Header().Del("Transfer-Encoding")
	if b, ok := r.Body.(*pacedBody); ok && b.fault != nil {
		err = b.fault // that the gateway could not decode what is left says less
		w.Header().Set("Connection", "close")
	}
	h.answerError(w, r, err)
}

// A streamWriter answers with a plain error where a stream fails before its first message:
// the gateway would wrap it as if messages had gone before.
type streamWriter struct {
	http.ResponseWriter
	failed *status.Status
	done   bool
}

type streamWriterKey struct{}

func streamError(ctx context.Context, err error) *status.Status {
	s := status.Convert(err)
	ctx.Value(streamWriterKey{}).(*streamWriter).failed = s
	return s
}

// WriteHeader comes from the gateway after streamError if it has not written anything.
func (w *streamWriter) WriteHeader(code int) {
	if w.failed == nil {
		w.ResponseWriter.WriteHeader(code)
		return
	}
	w.done = true
	w.Header().Del("Transfer-Encoding")
	writeError(w.ResponseWriter, w.failed.Err())
}

func (w *streamWriter) Write(b []byte) (int, error) {
	if w.done { // the wrapped form
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (h *HTTP) routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		h.answerError(w, r, fmt.Errorf("path %q: %w; /openapi.json lists what there is", r.URL.Path, store.ErrNotFound))
	case http.StatusMethodNotAllowed:
		h.answerError(w, r, &httpError{code, fmt.Sprintf("the method %q is not for this path; Allow says which are", r.Method)})
	default:
		h.answerError(w, r, &httpError{code, http.StatusText(code)})
	}
}

// writeError answers with err as a google.rpc.Status in JSON.
func writeError(w http.ResponseWriter, err error) {
	s := toStatus(err)
	if s.Code() == codes.InvalidArgument && len(s.Details()) == 0 {
		// The gateway's own, about what it could not decode.
		s = toStatus(fmt.Errorf("%w: %s", store.ErrInvalid, s.Message()))
	}
	code := runtime.HTTPStatusFromCode(s.Code())
	if refused := (*httpError)(nil); errors.As(err, &refused) {
		code = refused.status
	}
	h := w.Header()
	if s.Code() == codes.Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="scale"`)
	}
	for _, d := range s.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			seconds := (retry.GetRetryDelay().AsDuration().Milliseconds() + 999) / 1000
			h.Set("Retry-After", strconv.FormatInt(max(seconds, 1), 10))
		}
	}
	h.Set("Content-Type", "application/json")
	b, merr := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(s.Proto())
	if merr != nil { // a detail of an unknown type
		b, _ = json.Marshal(map[string]any{"code": s.Code(), "message": s.Message()})
	}
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // a caller who is gone needs no answer
}

func writeOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPI)
}
