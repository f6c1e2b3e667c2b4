// Command deviceplugin advertises simulated GPUs to a kubelet of the lab.
//
// It is what the vendor's device plugin is on a real blade: ids in the environment of the
// container, allocatable that falls as a device gets sick. Which devices are sick stands in
// a file, one id a line; it is read again each half second. When the kubelet restarts it
// throws its plugins away, so the plugin ends then, and whoever started it starts it again.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	kubeletEvery = 50 * time.Millisecond
	lookEvery    = 500 * time.Millisecond
	patience     = 5 * time.Second
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	count    int
	sickFile string
}

func (p *plugin) devices() []*api.Device {
	text, _ := os.ReadFile(p.sickFile) // no file: all are well
	sick := map[string]bool{}
	for _, id := range strings.Fields(string(text)) {
		sick[id] = true
	}
	devices := make([]*api.Device, p.count)
	for i := range devices {
		id := fmt.Sprintf("gpu-%d", i)
		devices[i] = &api.Device{ID: id, Health: api.Healthy}
		if sick[id] {
			devices[i].Health = api.Unhealthy
		}
	}
	return devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	told := ""
	for {
		devices := p.devices()
		if now := fmt.Sprint(devices); now != told {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

func (p *plugin) Allocate(_ context.Context, asked *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		ids := strings.Join(container.DevicesIds, ",")
		answer.ContainerResponses = append(answer.ContainerResponses,
			&api.ContainerAllocateResponse{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids}})
	}
	return answer, nil
}

func register(folder, socket, resource string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+filepath.Join(folder, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socket, ResourceName: resource,
	}, grpc.WaitForReady(true))
	return err
}

func main() {
	folder := flag.String("folder", api.DevicePluginPath, "the kubelet's folder of plugin sockets")
	resource := flag.String("resource", "nvidia.com/gpu", "what the devices are called")
	count := flag.Int("count", 8, "how many devices there are")
	sick := flag.String("sick", "", "file that names the sick devices")
	flag.Parse()

	// The kubelet empties the folder before it listens; what was there earlier would be lost.
	for {
		if _, err := os.Stat(filepath.Join(*folder, "kubelet.sock")); err == nil {
			break
		}
		time.Sleep(kubeletEvery)
	}
	socket := "tramontane-lab.sock"
	path := filepath.Join(*folder, socket)
	_ = os.Remove(path) // of a plugin that was killed
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatalf("listening on %s: %v", path, err)
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{count: *count, sickFile: *sick})
	go func() { log.Fatalf("serving: %v", server.Serve(listener)) }()
	if err := register(*folder, socket, *resource); err != nil {
		log.Fatalf("registering %s: %v", *resource, err)
	}
	log.Printf("registered %d %s", *count, *resource)
	for {
		time.Sleep(lookEvery)
		if _, err := os.Stat(path); err != nil { // a kubelet that starts empties the folder
			log.Fatal("the kubelet has restarted; ending, to be registered again")
		}
	}
}
