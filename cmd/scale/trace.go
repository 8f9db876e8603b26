package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// flushTraces is how long a node that stops waits for a collector to take the last spans.
const flushTraces = 3 * time.Second

// openTraces returns what sends a span for every call of a node to an OpenTelemetry
// collector, as the variables OTEL_* of the environment say, or nil if they name none. They
// mean what OpenTelemetry's specification says; the SDK reads all but these:
//
//   - OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or
//     OTEL_TRACES_EXPORTER=otlp, turn tracing on: without them nothing is sent anywhere;
//   - OTEL_SDK_DISABLED=true and OTEL_TRACES_EXPORTER=none turn it off;
//   - OTEL_EXPORTER_OTLP_PROTOCOL and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL are grpc or
//     http/protobuf, which is the default.
//
// A collector that is down costs spans, never calls: at most 2,048 wait.
func openTraces(ctx context.Context, log *slog.Logger) (*trace.TracerProvider, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "":
		if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
			return nil, nil
		}
	case "otlp":
	case "none":
		return nil, nil
	default:
		return nil, usagef("OTEL_TRACES_EXPORTER is %q, and this program knows otlp and none", exporter)
	}
	var client otlptrace.Client
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "", "http/protobuf":
		client = otlptracehttp.NewClient()
	case "grpc":
		client = otlptracegrpc.NewClient()
	default:
		return nil, usagef("the protocol of OTEL_EXPORTER_OTLP_PROTOCOL is %q, and this program knows grpc and http/protobuf", protocol)
	}
	// What the environment says of the service comes last and counts.
	service, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "scale"), attribute.String("service.version", buildVersion())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, usagef("OTEL_RESOURCE_ATTRIBUTES: %v", err)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(&traceErrors{log: log})
	return trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(service)), nil
}

// traceErrors logs what goes wrong with traces, a line a minute: a collector that is down
// fails again and again.
type traceErrors struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time // of a line
}

// Handle implements otel.ErrorHandler.
func (e *traceErrors) Handle(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); e.last.IsZero() || now.Sub(e.last) >= time.Minute {
		e.last = now
		e.log.Warn("traces are lost", "err", err)
	}
}
