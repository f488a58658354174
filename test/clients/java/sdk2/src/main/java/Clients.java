import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentSkipListSet;

import software.amazon.awssdk.core.client.config.ClientOverrideConfiguration;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.core.interceptor.SdkExecutionAttribute;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.apache.ApacheHttpClient;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;

/** The SDK's two clients, and what they sent. */
final class Clients {
    /** The operations that succeeded at least once. */
    static final Set<String> operations = new ConcurrentSkipListSet<>();

    /** The types of the bodies that were sent. */
    static final Set<String> contentTypes = new ConcurrentSkipListSet<>();

    private static final URI endpoint = URI.create(System.getenv("ENDPOINT"));

    private static final ClientOverrideConfiguration watched = ClientOverrideConfiguration.builder()
            .addExecutionInterceptor(new ExecutionInterceptor() {
                @Override
                public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes attributes) {
                    contentTypes.addAll(context.httpRequest().matchingHeaders("Content-Type"));
                }

                @Override
                public void afterExecution(Context.AfterExecution context, ExecutionAttributes attributes) {
                    operations.add(attributes.getAttribute(SdkExecutionAttribute.OPERATION_NAME));
                }
            })
            .build();

    /** The blocking client: HTTP/1.1. */
    static KinesisClient sync() {
        return KinesisClient.builder().endpointOverride(endpoint).region(Region.US_EAST_1)
                .overrideConfiguration(watched).httpClientBuilder(ApacheHttpClient.builder()).build();
    }

    /** The asynchronous client: HTTP/2, on http:// with prior knowledge. */
    static KinesisAsyncClient async() {
        return KinesisAsyncClient.builder().endpointOverride(endpoint).region(Region.US_EAST_1)
                .overrideConfiguration(watched)
                .httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP2)).build();
    }

    /** Shows an asynchronous client as a blocking one: each call waits for its future. */
    static KinesisClient blocking(KinesisAsyncClient async) {
        return (KinesisClient) Proxy.newProxyInstance(
                Clients.class.getClassLoader(), new Class<?>[] {KinesisClient.class}, (proxy, method, args) -> {
                    if (method.getName().equals("close")) {
                        async.close();
                        return null;
                    }
                    try {
                        Object future = KinesisAsyncClient.class
                                .getMethod(method.getName(), method.getParameterTypes()).invoke(async, args);
                        return ((CompletableFuture<?>) future).join();
                    } catch (CompletionException | InvocationTargetException e) {
                        throw e.getCause();
                    }
                });
    }

    private Clients() {}
}
