package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpcechoserver"
)

// Nobody waits for longer.
const patience = 10 * time.Second

// What is to be asked. The suite puts options behind the URL, where package flag would not see them.
type question struct {
	url     *url.URL
	method  string
	headers [][2]string
	count   int
}

func parse(args []string) (question, error) {
	asked := question{method: http.MethodGet, count: 1}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch value, found := strings.CutPrefix(arg, "--method="); {
		case found:
			asked.method = value
		case strings.HasPrefix(arg, "--count="):
			asked.count, err = strconv.Atoi(strings.TrimPrefix(arg, "--count="))
		case arg == "-H" && len(args) > 0:
			name, value, _ := strings.Cut(args[0], ":")
			asked.headers = append(asked.headers, [2]string{name, strings.TrimSpace(value)})
			args = args[1:]
		case asked.url == nil && strings.Contains(arg, "://"):
			asked.url, err = url.Parse(arg)
		default:
			err = fmt.Errorf("unknown argument %q", arg)
		}
		if err != nil {
			return asked, err
		}
	}
	if asked.url == nil {
		return asked, fmt.Errorf("usage: client URL [--method=M] [-H name:value] [--count=N]")
	}
	return asked, nil
}

// Prints each answer as lines that end with an empty one.
func ask(args []string) error {
	asked, err := parse(args)
	if err != nil {
		return err
	}
	one := asked.http
	if asked.url.Scheme == "grpc" {
		connection, err := grpc.NewClient("passthrough:///"+asked.url.Host,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer connection.Close()
		client := grpcechoserver.NewGrpcEchoClient(connection)
		one = func(ctx context.Context) (string, error) { return asked.call(ctx, client) }
	}
	for range asked.count {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		answer, err := one(ctx)
		cancel()
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	return nil
}

func (asked question) http(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, asked.method, asked.url.String(), nil)
	if err != nil {
		return "", err
	}
	for _, header := range asked.headers {
		if strings.EqualFold(header[0], "host") {
			request.Host = header[1]
		} else {
			// As it is written: the case is part of what is asked.
			request.Header[header[0]] = append(request.Header[header[0]], header[1])
		}
	}
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	lines := []string{fmt.Sprintf("StatusCode=%d", answer.StatusCode)}
	for name, values := range answer.Header {
		for _, value := range values {
			lines = append(lines, fmt.Sprintf("ResponseHeader=%s:%s", name, value))
		}
	}
	// Only what an application of ours has said: an error page could have anything.
	if strings.HasPrefix(string(body), "ServicePort=") {
		lines = append(lines, strings.TrimSpace(string(body)))
	}
	return strings.Join(lines, "\n") + "\n", nil
}

func (asked question) call(ctx context.Context, client grpcechoserver.GrpcEchoClient) (string, error) {
	for _, header := range asked.headers {
		ctx = metadata.AppendToOutgoingContext(ctx, header[0], header[1])
	}
	answer, err := client.Echo(ctx, &grpcechoserver.EchoRequest{})
	if err != nil {
		return "", err
	}
	// The suite speaks of gRPC's OK as of HTTP's.
	said := answer.GetAssertions()
	lines := []string{"StatusCode=200", "Host=" + said.GetAuthority(), "Hostname=" + said.GetContext().GetPod()}
	for _, header := range said.GetHeaders() {
		lines = append(lines, fmt.Sprintf("RequestHeader=%s:%s", header.GetKey(), header.GetValue()))
	}
	return strings.Join(lines, "\n") + "\n", nil
}
