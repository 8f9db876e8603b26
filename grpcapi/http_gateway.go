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

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

//go:embed scale.swagger.json
var openAPI []byte

// maxGatewayMessage is the limit of a message, as for every client.
const maxGatewayMessage = 4 << 20

// A strictQuery refuses a parameter that is no field of a message of ours, which a typing
// error in its name would otherwise leave out without a word.
type strictQuery struct{ runtime.DefaultQueryParser }

func (q *strictQuery) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	if d := msg.ProtoReflect().Descriptor(); d.ParentFile().Package() == "scale.v1" {
		for key := range values {
			if !hasField(d, strings.Split(key, ".")) {
				return fmt.Errorf("there is no parameter %q", cutText(key, maxQueryKey))
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

// newGateway makes the handler that turns requests into calls on conn.
func newGateway(conn *grpc.ClientConn) (http.Handler, error) {
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
		runtime.WithErrorHandler(gatewayError),
		runtime.WithRoutingErrorHandler(routingError),
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
		if err := register(ctx, mux, conn); err != nil {
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
	Cert          string
	Anonymous     scalev1.Scope
	Authorization []string
	Account       uint64
}

func callerMetadata(ctx context.Context, r *http.Request) metadata.MD {
	c := ctx.Value(callerContextKey{}).(requestCaller)
	// What a caller may not do is not read for him either: JSON takes more than its length.
	name, _ := runtime.RPCMethod(ctx)
	if m, ok := methods[name]; ok && c.who.Scope < m.scope {
		if b, ok := r.Body.(*pacedBody); ok {
			b.fault = scopeError(m, c.who)
		}
	}
	b, err := json.Marshal(callerJSON{c.addr, c.cert, c.anonymous, c.authorization, c.account})
	if err != nil {
		panic(err) // strings and a number
	}
	md := metadata.Pairs(callerKey, string(b))
	for _, key := range []string{"traceparent", "tracestate"} {
		if v := r.Header.Get(key); v != "" && len(v) <= maxTraceHeader {
			md.Set(key, v)
		}
	}
	return md
}

// maxTraceHeader is what every party has to pass on of tracestate (W3C Trace Context, 3.3.1.5).
const maxTraceHeader = 512

// gatewayCaller reads what callerMetadata wrote.
func gatewayCaller(md metadata.MD) (c requestCaller, err error) {
	var j callerJSON
	v := md.Get(callerKey)
	if len(v) != 1 || json.Unmarshal([]byte(v[0]), &j) != nil {
		return c, fmt.Errorf("%w: the HTTP port did not say who calls", ErrToken)
	}
	return requestCaller{caller{routeGateway, j.Addr, j.Cert, j.Anonymous}, j.Authorization, j.Account, Identity{}}, nil
}

// A jsonMarshaler reads messages from a pacedBody, each within its bounds.
type jsonMarshaler struct{ runtime.JSONPb }

func (m *jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	d := m.JSONPb.NewDecoder(r)
	b, ok := r.(*pacedBody)
	if !ok {
		return d
	}
	return runtime.DecoderFunc(func(v any) error {
		b.next()
		return d.Decode(v)
	})
}

// gatewayError answers with the error of a call.
func gatewayError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Del("Trailer")
	w.Header().Del("Transfer-Encoding")
	if b, ok := r.Body.(*pacedBody); ok && b.fault != nil {
		err = b.fault // that the gateway could not decode what is left says less
		w.Header().Set("Connection", "close")
	}
	writeError(w, err)
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

func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		writeError(w, fmt.Errorf("path %q: %w; /openapi.json lists what there is", r.URL.Path, store.ErrNotFound))
	default:
		writeError(w, &httpError{code, http.StatusText(code)})
	}
}

// writeError answers with err as a google.rpc.Status in JSON.
func writeError(w http.ResponseWriter, err error) {
	var refusal *httpError
	var s *status.Status
	code := 0
	if errors.As(err, &refusal) {
		code, s = refusal.status, toStatus(fmt.Errorf("%w: %w", store.ErrInvalid, err))
	} else if st, ok := status.FromError(err); ok {
		if s = st; s.Code() == codes.InvalidArgument && len(s.Details()) == 0 {
			// The gateway's own, about what it could not decode.
			s = toStatus(fmt.Errorf("%w: %s", store.ErrInvalid, s.Message()))
		}
	} else {
		s = toStatus(err)
	}
	if code == 0 {
		code = runtime.HTTPStatusFromCode(s.Code())
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
