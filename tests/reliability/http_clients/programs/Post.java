// Posts files with Java's own client, as it is by default: it asks for HTTP/2 with the header Upgrade.
// Arguments: URL and files. Prints the status of each answer, or "lost" and why.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;

class Post {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int at = 1; at < arguments.length; at++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .timeout(Duration.ofSeconds(60))
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[at])))
                .build();
            try {
                System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
            } catch (java.io.IOException error) {
                System.out.println("lost " + error);
            }
        }
        System.exit(0);
    }
}
